#!/usr/bin/env bash
# A Raspberry Pi 4B in emulation: musgd is installed there, examines the board, finds in images what
# it finds here, measures a model, and trains. README.md beside this tells what that shows and what
# it cannot.
#
#   sudo -E tests/emulated/run.sh
#
# Options:
#   --release NAME     of Debian, and so of Raspberry Pi OS: bookworm, which has Python 3.11 and is the
#                      default, or trixie, which has 3.13
#   --cache DIR        keeps the root file system and what pip fetches; default: musgd/emulated in
#                      XDG_CACHE_HOME, else in ~/.cache
#   --wheelhouse DIR   install from what musgd wheelhouse --target pi4b made, with the network off
#   --model FILE.pt    export it, and compare what it finds in photos; default: yolo26n-coco.pt in
#                      MUSGD_SHARED's models, if it is there
#   --train            install torch too, and train two steps
#
# Environment:
#   MUSGD_PYTHON         this machine's Python with musgd in it; default: .venv/bin/python
#   MUSGD_DEBIAN_MIRROR  where Debian comes from; default: where this machine's apt has it from, else
#                        deb.debian.org
# What pip is told of its index (PIP_INDEX_URL and so on) and of proxies is handed on to the board.
#
# Exit codes, as musgd's own: 0 all is well, 1 a step could not be done, 2 usage, 3 this machine
# cannot do it, 4 a check failed. All is mounted in a namespace of its own, so nothing stays.
set -euo pipefail

declare -A PYTHONS=([bookworm]=3.11 [trixie]=3.13)
# What Raspberry Pi OS has and Debian's essential packages lack.
PACKAGES=python3,python3-venv,libgomp1,libstdc++6,ca-certificates,procps
CPU=cortex-a72
IMGSZ=160
FREE_GB=2
TRAIN_FREE_GB=5
PREFIX=/opt/musgd

repository=$(cd "$(dirname "$0")/../.." && pwd -P)
here=$repository/tests/emulated
board=$repository/tests/boards/pi4b

main() {
    read_options "$@"
    require_machine
    if [ -z "${MUSGD_EMULATED_INSIDE-}" ]; then
        export MUSGD_EMULATED_INSIDE=1
        exec unshare --mount --propagation private "$0" "$@"
    fi
    trap leave EXIT
    failed=0
    registered=
    began=$SECONDS
    prepare_folders
    register_emulator

    step "Debian $release for arm64" make_root
    step "a Pi 4B's /proc and /sys over it" dress
    step "its programs run, as on a $CPU" run_programs
    step "models and images, made here" make_material
    local how=
    [ -z "$train" ] || how=" with torch"
    [ -z "$wheelhouse" ] || how="$how, its network off"
    check "install.sh$how" install
    check "install.sh again changes nothing" install_again
    check "doctor says pi4b, emulated" doctor
    check "the known model finds there what it finds here" find_alike cells
    [ -z "$model" ] || check "the real model finds there what it finds here" find_alike yolo
    check "bench of an ncnn artifact, end to end" bench
    check "bench's table shows no speed" show_no_speed
    if [ -n "$train" ]; then
        check "torch computes" compute_with_torch
        check "train does two steps" train_two_steps
    fi
    check "install.sh --uninstall leaves nothing" uninstall
    printf '%-4s  %5d s               in all\n' "" $((SECONDS - began))
    [ "$failed" = 0 ] || die 4 "$failed of the checks failed" "read their logs in $logs"
}

read_options() {
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/musgd/emulated
    release=bookworm
    wheelhouse=
    train=
    model=${MUSGD_SHARED:+$MUSGD_SHARED/models/yolo26n-coco.pt}
    [ -f "$model" ] || model=
    while [ $# -gt 0 ]; do
        case $1 in
            --train) train=yes ;;
            --release | --cache | --wheelhouse | --model)
                [ -n "${2-}" ] || die 2 "$1 needs a value" "$0 --help"
                case $1 in
                    --release) release=$2 ;;
                    *) printf -v "${1#--}" %s "$(realpath -m -- "$2")" ;;
                esac
                shift
                ;;
            -h | --help)
                sed -n '2,/^set/s/^#\( \|$\)//p' "$0"
                exit
                ;;
            *) die 2 "no such option: $1" "$0 --help" ;;
        esac
        shift
    done
    [ -n "${PYTHONS[$release]-}" ] || die 2 "no such release: $release" "$0 --help"
    [ -z "$wheelhouse" ] || [ -d "$wheelhouse" ] ||
        die 2 "there is no $wheelhouse" "musgd wheelhouse --target pi4b --out $wheelhouse"
    [ -z "$model" ] || [ -f "$model" ] || die 2 "there is no $model" "name weights that exist"
}

# ---- what this machine must have ---------------------------------------------------------------

require_machine() {
    [ "$(id -u)" = 0 ] ||
        die 3 "this mounts and changes its root folder, which needs root" "sudo -E $0"
    emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || lacks qemu-user-static
    command -v mmdebstrap >/dev/null || lacks mmdebstrap
    command -v unshare >/dev/null || lacks unshare
    python=${MUSGD_PYTHON:-$repository/.venv/bin/python}
    PYTHONPATH=$repository "$python" -c 'import musgd_cli, ncnn, cv2' 2>/dev/null ||
        die 3 "$python has no musgd with ncnn, to compare with" \
            "./install.sh test, or MUSGD_PYTHON=/path/to/python $0"
}

lacks() {
    die 3 "$1 is missing" "sudo apt-get install qemu-user-static mmdebstrap util-linux"
}

# The kernel hands arm64 programs to QEMU. What was registered already is taken as it is.
register_emulator() {
    local misc=/proc/sys/fs/binfmt_misc
    [ -e $misc/register ] || mount -t binfmt_misc binfmt_misc $misc ||
        die 3 "the kernel has no binfmt_misc" "sudo modprobe binfmt_misc"
    if ! grep -qs '^magic 7f454c460201010000000000000000000200b7' $misc/*; then
        # An ELF header (elf.h): 64 bits, little-endian, a program or a shared object, AArch64. With
        # F the emulator is opened now, so that it is found below another root folder too.
        local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
        local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
        printf '%s' ":musgd-aarch64:M::$magic:$mask:$emulator:F" >$misc/register ||
            die 3 "the kernel takes no emulator" "use a machine of your own, not a container"
        registered=$misc/musgd-aarch64
    fi
}

prepare_folders() {
    root=$cache/$release-$(printf %s "$PACKAGES" | cksum | cut -d' ' -f1)
    work=$cache/work # /work on the board
    logs=$cache/logs
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -n 9 || die 1 "another run uses $cache" "wait for it, or name another --cache"
    local needed=$FREE_GB free
    [ -z "$train" ] || needed=$TRAIN_FREE_GB
    free=$(($(df -k --output=avail "$cache" | tail -n 1) / 1048576))
    [ "$free" -ge "$needed" ] || die 3 "$free GB are free in $cache, and $needed are needed" \
        "free some space, or name another --cache"
    rm -rf --one-file-system "$work" "$logs"
    mkdir -p "$work" "$logs" "$cache/pip"
}

# ---- the board ---------------------------------------------------------------------------------

# The packages are unpacked by this machine's own programs. Their own set-up scripts would take
# minutes in emulation; of what those make, what is needed here is made by hand.
make_root() {
    if [ -e "$root/complete" ]; then
        echo "kept in $root"
        return
    fi
    rm -rf --one-file-system "$root"
    # shellcheck disable=SC2016 # the shell that mmdebstrap calls expands it
    mmdebstrap --mode=root --variant=extract --arch=arm64 --format=directory \
        --include='?essential' --include="$PACKAGES" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --extract-hook='for deb in "$1"/var/cache/apt/archives/*.deb; do
                dpkg-deb --field "$deb" | sed "1a Status: install ok installed"
                echo
            done >"$1/var/lib/dpkg/status"' \
        "$release" "$root" "$(mirror)"
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    ln -s mawk "$root/usr/bin/awk"
    rm -f "$root/etc/resolv.conf" # it may be a link
    touch "$root/etc/resolv.conf"
    mkdir -p "$root/src" "$root/work" "$root/wheelhouse" "$root/root/.cache/pip"
    touch "$root/complete"
    du -sh "$root"
}

mirror() {
    local known=${MUSGD_DEBIAN_MIRROR-}
    if [ -z "$known" ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2016 # apt expands it
        known=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
            'Label: Debian' | head -n 1)
    fi
    printf '%s\n' "${known:-http://deb.debian.org/debian}"
}

# The recorded board's files lie over this machine's. Processes, and how busy they are, stay real.
dress() {
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/sys"
    cp -r "$board/sys/." "$root/sys/"
    # torch's and ONNX Runtime's cpuinfo library wants these besides; a Pi has all of its cores.
    tee "$root/sys/devices/system/cpu/possible" "$root/sys/devices/system/cpu/present" \
        <"$board/sys/devices/system/cpu/online"
    mount --rbind /dev "$root/dev"
    local file
    for file in cpuinfo meminfo 1/cgroup sys/kernel/arch sys/kernel/osrelease; do
        # Before Linux 6.1 there is no sys/kernel/arch.
        [ ! -e "$root/proc/$file" ] || mount --bind "$board/proc/$file" "$root/proc/$file"
    done
    show "$repository" src
    show /etc/ssl/certs etc/ssl/certs
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
    mount --bind "$work" "$root/work"
    mount --bind "$cache/pip" "$root/root/.cache/pip"
    [ -z "$wheelhouse" ] || show "$wheelhouse" wheelhouse
}

# show FOLDER PLACE: let the board read it.
show() {
    mount --bind "$1" "$root/$2"
    mount -o remount,bind,ro "$root/$2"
}

# on_board COMMAND: run it there, without this machine's variables. QEMU_CPU decides which
# instructions there are; any other ends a program with SIGILL, as on the board.
on_board() {
    local handed=() name
    for name in PIP_{INDEX_URL,EXTRA_INDEX_URL,TRUSTED_HOST,CERT,PROXY,DEFAULT_TIMEOUT} \
        {http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY; do
        [ -z "${!name-}" ] || handed+=("$name=${!name}")
    done
    env -i "${handed[@]}" HOME=/root LANG=C.UTF-8 QEMU_CPU="$CPU" PIP_CACHE_DIR=/root/.cache/pip \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "${without_network[@]}" "$(command -v chroot)" "$root" \
        /bin/sh -c 'cd /work && exec "$@"' sh "$@"
}
without_network=()

run_programs() {
    local said
    said=$(on_board sh -c 'uname -m; python3 --version; cat /sys/firmware/devicetree/base/model' |
        tr '\0\n' '  ')
    echo "$said"
    [[ $said == "aarch64 Python ${PYTHONS[$release]}."*"Raspberry Pi 4 Model B"* ]]
}

# ---- the checks --------------------------------------------------------------------------------

make_material() {
    PYTHONPATH=$repository:$repository/tests "$python" "$here/material.py" "$work"
    musgd_here predict cells/ncnn cells/images "${found[@]}" >"$work/cells/here.json"
    [ -n "$model" ] || return 0
    musgd_here export "$model" --target pi4b --runtime ncnn --imgsz "$IMGSZ" --out yolo/artifacts
    mv "$work"/yolo/artifacts/pi4b-ncnn-* "$work/yolo/ncnn"
    musgd_here predict yolo/ncnn yolo/images "${found[@]}" >"$work/yolo/here.json"
}
found=(--json --no-save --quiet --threads 1)

musgd_here() {
    (cd "$work" && PYTHONPATH=$repository "$python" -m musgd_cli "$@")
}

musgd_there() {
    on_board "$PREFIX/venv/bin/musgd" "$@"
}

install() {
    rm -rf --one-file-system "$root$PREFIX"
    call_installer
}

install_again() {
    local before
    before=$(state_of_prefix)
    call_installer
    [ "$before" = "$(state_of_prefix)" ]
}

state_of_prefix() {
    find "$root$PREFIX" -type f -printf '%p %s %T@\n' | sort | sha256sum
}

call_installer() {
    local options=(--yes --no-apt --prefix "$PREFIX")
    [ -z "$train" ] || options+=(--extras train)
    if [ -n "$wheelhouse" ]; then
        options+=(--offline /wheelhouse)
        without_network=("$(command -v unshare)" --net)
    fi
    on_board /src/install.sh "${options[@]}"
}

uninstall() {
    on_board /src/install.sh --uninstall --yes --prefix "$PREFIX"
    [ ! -e "$root$PREFIX" ]
    [ ! -L "$root/root/.local/bin/musgd" ]
}

doctor() {
    musgd_there doctor --json >"$work/doctor.json" || [ $? = 4 ]
    agree "$work/doctor.json" 'said["host"]["board"] == "pi4b"' \
        'said["host"]["emulated"] is True' 'said["host"]["runtimes"]["ncnn"]'
}

find_alike() {
    musgd_there predict "$1/ncnn" "$1/images" "${found[@]}" >"$work/$1/there.json"
    "$python" "$here/same.py" "$work/$1/here.json" "$work/$1/there.json"
}

bench() {
    musgd_there bench cells/ncnn --data cells/data/data.yaml --threads 1 --frames 5 --repeats 1 \
        --set bench.warmup_s=0 >"$work/bench.txt"
    cat "$work/bench.txt"
    local reports=("$work"/runs/*/bench/*.json)
    agree "${reports[0]}" 'said["host"]["board"] == "pi4b"' 'said["host"]["emulated"] is True' \
        'said["runtime"] == "ncnn"' 'said["n"] >= 5' 'said["map50_95"] > 0.99'
}

show_no_speed() {
    grep -E '^ *ncnn .* emulated .* emulated ' "$work/bench.txt"
    grep 'measured on an emulated machine' "$work/bench.txt"
}

compute_with_torch() {
    on_board "$PREFIX/venv/bin/python" -c '
import torch
x = torch.randn(1, 3, 32, 32, requires_grad=True)
torch.nn.Conv2d(3, 8, 3)(x).square().mean().backward()
print(torch.__version__, float(x.grad.norm()))'
}

train_two_steps() {
    musgd_there train --data cells/data/data.yaml --model tiny.yaml --epochs 1 --imgsz 64 \
        --batch 3 --set train.threads=1 --set optim.warmup_epochs=0 --json >"$work/train.json"
    agree "$work/train.json" 'said["steps"] == 2' 'said["optimizer"] == "musgd"'
}

# agree FILE EXPRESSION...: each must be true of the JSON object `said`.
agree() {
    "$python" - "$@" <<'EOF'
import json, sys

said = json.load(open(sys.argv[1]))
wrong = [expression for expression in sys.argv[2:] if not eval(expression)]
sys.exit(f"{sys.argv[1]}: not so: {'; '.join(wrong)}" if wrong else 0)
EOF
}

# ---- what a person sees ------------------------------------------------------------------------

# step TITLE FUNCTION: what the checks stand on; without it nothing goes on.
step() {
    attempt "$@"
    [ "$code" = 0 ] || die 1 "$1: could not be done" "read $log, then run $0 again"
}

# check TITLE FUNCTION [ARGUMENT]: a failure is counted, and the others are made.
check() {
    attempt "$@"
    [ "$code" = 0 ] || failed=$((failed + 1))
}

# Sets log and code. The function runs in a shell of its own, which ends at the first failure; no
# caller may stand before && or ||, where bash would go on. Mounts are the namespace's and stay.
attempt() {
    local spent wall cpu TIMEFORMAT='%R %U %S'
    n=$((${n-0} + 1))
    log=$logs/$(printf %02d "$n")-$2.log
    set +e
    spent=$(
        {
            time {
                (
                    set -e
                    "${@:2}"
                ) >"$log" 2>&1 </dev/null
            }
        } 2>&1
    )
    code=$?
    set -e
    read -r wall cpu <<<"$(awk '{ printf "%.0f %.0f", $1, $2 + $3 }' <<<"$spent")"
    if [ "$code" = 0 ]; then
        line PASS "$wall" "$cpu" "$1"
    else
        line FAIL "$wall" "$cpu" "$1"
        tail -n 5 "$log" >&2
    fi
}

# line VERDICT SECONDS OF_PROCESSOR TITLE: what a step took, by the clock and of the processors.
line() {
    printf '%-4s  %5d s  %5d s CPU  %s\n' "$@"
}

# die CODE WHAT MEND: the two lines and the codes of musgd itself.
die() {
    printf 'error: %s\nmend: %s\n' "$2" "$3" >&2
    exit "$1"
}

leave() {
    [ -z "$registered" ] || printf -- -1 >"$registered"
}

main "$@"
