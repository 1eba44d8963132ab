# Which board this is, by files alone: the rules of musgd_cli/hardware/detection.py in sh, over the
# same table, boards.txt, which docs/generate.py writes. A test holds both to the same answers on
# every recorded tree.
#
# Reads $tree: empty for this machine, else the root of a recorded one, of which nothing live is
# read; and $table. install.sh sources it; /proc and /sys are as Tree reads them there.
# shellcheck shell=sh disable=SC2034,SC2154 # what it sets is read there, and the reverse

NANO_MAX_KHZ=1479000 # the TX1, with the same cores, runs at 1734 MHz
NANO_2GB_MAX_MB=2048

# Sets bits and programs (what the userland is built for), arch (the kernel's), ram_mb, l4t, and
# board with decided_by. Empty is what the tree does not say.
detect() {
    read_userland
    read_arch
    l4t=$(sed -nE 's/.*R([0-9]+) \(release\), REVISION: ([0-9.]+).*/\1.\2/p' \
        "$(located etc/nv_tegra_release)" 2>/dev/null) || :
    revision=$(read_revision)
    ram_mb=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' "$(located proc/meminfo)" 2>/dev/null) || :
    if [ -z "$ram_mb" ] && [ -n "$revision" ]; then
        ram_mb=$((256 << (revision >> 20 & 7)))
    fi
    by_name || by_device_tree || by_l4t || by_revision || by_processor
}

# row BOARD: its extras, its agent (yes or no) and its title, tab-separated.
row() {
    awk -F'|' -v name="$1" -v OFS='\t' '$1 == name { print $3, $4, $2 }' "$table"
}

# ---- the rules, in their order --------------------------------------------------------------------

by_name() {
    [ -z "$tree" ] || return 1
    if [ -z "${MUSGD_BOARD-}" ]; then
        board=$(chosen board)
        decided_by='MUSGD_BOARD of an earlier run'
        [ -n "$board" ] && [ -n "$(row "$board")" ]
        return
    fi
    if [ -z "$(row "$MUSGD_BOARD")" ]; then
        die 2 "MUSGD_BOARD=$MUSGD_BOARD names no board" \
            "set it to one of $(awk -F'|' '!/^#/ { printf "%s%s", c, $1; c = ", " }' "$table"), or unset it"
    fi
    board=$MUSGD_BOARD
    decided_by=MUSGD_BOARD
}

# A token counts whole; of NVIDIA's carrier+module, such as nvidia,p3449-0000-b00+p3448-0002-b00,
# the module, nvidia,p3448-0002, counts too.
by_device_tree() {
    tokens=$(device_tree compatible | tr '\000' '\n')
    [ -n "$tokens" ] || return 1
    board=$(printf '%s\n' "$tokens" | awk -F'|' '
        FNR == NR {
            known[$0]
            if (sub(/^nvidia,/, "")) {
                for (i = split($0, parts, "+"); i > 0; i--) {
                    if (parts[i] ~ /^p[0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9]/) {
                        known["nvidia," substr(parts[i], 1, 10)]
                        break
                    }
                }
            }
            next
        }
        /^#/ { next }
        { for (i = split($5, names, " "); i > 0; i--) if (names[i] in known) { print $1; exit } }
    ' - "$table")
    decided_by='device-tree compatible'
    [ -n "$board" ]
}

# A Jetson without its device tree, as in a container. TNSPEC begins id-fab-sku- or id-sku-fab-.
by_l4t() {
    [ -n "$l4t" ] || return 1
    spec=$(sed -n 's/^TNSPEC //p' "$(located etc/nv_boot_control.conf)" 2>/dev/null) || :
    decided_by='TNSPEC of nv_boot_control.conf'
    board=$(printf '%s\n' "$spec" | awk -F'|' '
        FNR == NR {
            split($0, part, "-")
            sku = part[2] ~ /^[0-9][0-9][0-9][0-9]$/ ? part[2] : part[3]
            wanted[part[1]]
            if (sku ~ /^[0-9][0-9][0-9][0-9]$/) wanted[part[1] "-" sku]
            next
        }
        /^#/ { next }
        { for (i = split($7, names, " "); i > 0; i--) if (names[i] in wanted) { print $1; exit } }
    ' - "$table")
    [ -z "$board" ] || return 0
    decided_by='nv_tegra_release and processor'
    [ "$(cpuinfo 'CPU part' | sort -u)" = 0xd07 ] || return 1 # Cortex-A57
    top_khz=$(cat "$(located sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq)" 2>/dev/null) || :
    [ "${top_khz:-0}" -le "$NANO_MAX_KHZ" ] || return 1
    board=jetson-nano
    [ -z "$ram_mb" ] || [ "$ram_mb" -gt "$NANO_2GB_MAX_MB" ] || board=jetson-nano-2gb
}

by_revision() {
    [ -n "$revision" ] || return 1
    board=$(awk -F'|' -v type=$((revision >> 4 & 255)) '
        /^#/ { next }
        { for (i = split($6, types, " "); i > 0; i--) if (types[i] == type) { print $1; exit } }
    ' "$table")
    decided_by='Raspberry Pi revision code'
    [ -n "$board" ]
}

by_processor() {
    decided_by=processor
    kind=$(family "$arch")
    if [ -z "$kind" ]; then
        if [ -n "$(cpuinfo 'CPU implementer')" ]; then
            kind=arm
        elif [ -n "$(cpuinfo vendor_id)" ] && [ -n "$(cpuinfo flags)" ]; then
            kind=x86
        fi
    fi
    case $kind-$arch in
        x86-*)
            board=x86-cpu
            if has_gpu; then
                board=x86-gpu
                decided_by='NVIDIA driver'
            fi
            ;;
        arm-aarch64) board=generic-arm64 ;;
        *)
            board=generic
            decided_by='nothing else matched'
            ;;
    esac
}

# ---- where they are -------------------------------------------------------------------------------

# located PATH: where a path, given from the root without a leading slash, really lies: the links of a
# recorded tree are followed as if it were /, so none leads out of it.
located() {
    if [ -z "$tree" ]; then
        printf '/%s\n' "$1"
        return
    fi
    place='' ahead=$1 links=0
    while [ -n "$ahead" ]; do
        part=${ahead%%/*}
        ahead=${ahead#"$part"}
        ahead=${ahead#/}
        case $part in
            '' | .) continue ;;
            ..) place=${place%/*} && continue ;;
        esac
        if [ -L "$tree$place/$part" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] || return 1 # path_resolution(7)
            to=$(readlink "$tree$place/$part")
            case $to in /*) place= ;; esac
            ahead=$to/$ahead
        else
            place=$place/$part
        fi
    done
    printf '%s\n' "$tree$place"
}

# ---- the facts ------------------------------------------------------------------------------------

# device_tree PROPERTY: its bytes. Docker masks /sys/firmware; bound to /host it can be read.
device_tree() {
    for folder in proc/device-tree sys/firmware/devicetree/base host/firmware/devicetree/base; do
        file=$(located "$folder/$1") || continue
        if [ -s "$file" ]; then
            cat "$file"
            return
        fi
    done
}

# cpuinfo FIELD: its values, one a line.
cpuinfo() {
    sed -nE "s/^$1[[:space:]]*:[[:space:]]*//p" "$(located proc/cpuinfo)" 2>/dev/null || :
}

# A Raspberry Pi's revision code as a number, where it is one of the new style (bit 23).
read_revision() {
    code=$(device_tree system/linux,revision | od -An -v -tx1 | tr -d ' \n')
    [ -n "$code" ] || code=$(cpuinfo Revision | tail -n 1)
    case $code in
        '' | *[!0-9a-fA-F]*) return ;;
    esac
    code=$((0x$code))
    [ $((code >> 23 & 1)) -eq 0 ] || printf '%s\n' "$code"
}

# A 64-bit kernel can run a 32-bit userland, so the kernel's word does not count.
read_userland() {
    bits=
    programs=
    for program in bin/sh usr/bin/sh usr/bin/python3; do
        # ELF: magic, then EI_CLASS at byte 4, and e_machine at 18.
        # shellcheck disable=SC2046 # one byte a word
        set -- $(od -An -v -tu1 -N20 "$(located "$program")" 2>/dev/null)
        [ "$#,${1-},${2-},${3-},${4-}" = '20,127,69,76,70' ] || continue
        [ "$5" -eq 2 ] && bits=64 || bits=32
        shift 18
        case $(($1 + $2 * 256)) in
            3) programs=i686 ;;
            40) programs=armv7l ;;
            62) programs=x86_64 ;;
            183) programs=aarch64 ;;
        esac
        return 0
    done
    # dpkg writes the native architecture first.
    case $(head -n 1 "$(located var/lib/dpkg/arch)" 2>/dev/null) in
        amd64) bits=64 programs=x86_64 ;;
        arm64) bits=64 programs=aarch64 ;;
        armhf) bits=32 programs=armv7l ;;
        armel) bits=32 programs=armv6l ;;
        i386) bits=32 programs=i686 ;;
    esac
}

read_arch() {
    if [ -z "$tree" ]; then
        arch=$(uname -m)
        return
    fi
    arch=$(cat "$(located proc/sys/kernel/arch)" 2>/dev/null) || : # since Linux 6.1
    [ -z "$arch" ] || return 0
    if [ "$(cpuinfo 'CPU architecture' | head -n 1)" = 8 ]; then
        arch=aarch64
    elif [ "$bits" = 64 ]; then
        arch=$programs
    fi
}

family() {
    case $1 in
        aarch64* | arm*) echo arm ;;
        x86 | x86_64 | i?86) echo x86 ;;
    esac
}

has_gpu() {
    if [ -z "$tree" ]; then
        has_nvidia_gpu
    else
        for folder in "$(located proc/driver/nvidia/gpus)"/*; do
            ! grep -qs '^Model:[[:space:]]*.' \
                "$(located "proc/driver/nvidia/gpus/${folder##*/}/information")" || return 0
        done
        return 1
    fi
}

# The newest python3.N of a recorded tree.
recorded_python() {
    for file in "$(located usr/bin)"/python3.* "$(located usr/local/bin)"/python3.*; do
        printf '%s\n' "${file##*/python}"
    done | grep -E '^3\.[0-9]+$' | sort -t. -k2n | tail -n 1
}
