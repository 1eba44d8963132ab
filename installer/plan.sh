# What this board gets, and why it cannot: the plan, looked at before anything is done.
# install.sh sources it.
# shellcheck shell=sh disable=SC2034,SC2154 # what it sets is read there, and the reverse

BENCH_GB=1     # the engines without torch: 275 MB unpacked on ARM, as much again while pip works
EXPORT_GB=2    # litert-export besides: 1 GB (pyproject.toml), and its downloads
TENSORRT_GB=5  # and TensorRT: a wheel of some 2 GB, and that unpacked; not measured by us
RUNS_MB=900    # memory to bench, as musgd doctor has it
TRAINS_MB=3500 # and to train
OLDEST_AGENT_PYTHON='(3, 6)'

# Sets kind (venv or agent), extras, what, packages, torch_step, need_gb, python and wanted, or says
# why this board cannot have musgd.
make_plan() {
    IFS='	' read -r own_extras agent title <<EOF
$(row "$board")
EOF
    refuse_userland
    [ -n "$tree" ] || extras=$(joined "$(chosen extras),$extras")
    kind=venv
    if [ "$agent" = yes ] && [ -z "$extras" ] && { [ -n "$l4t" ] || ! has_new_python; }; then
        kind=agent
        what='the agent for JetPack 4'
        target=$prefix/musgd
        packages=
        need_gb=1
        plan_agent
    else
        plan_venv
    fi
    [ -z "$with_swap" ] || need_gb=$((need_gb + SWAP_MB / 1024))
    if [ -z "$tree" ]; then
        refuse_foreign
        plan_link
        refuse_link
        refuse_clock
        is_done || refuse_place
    fi
    warn_memory
}

plan_venv() {
    read_board_python
    if [ -n "$offline" ]; then
        read_wheelhouse
    else
        extras=$(joined "$own_extras,$extras")
        [ -f "$root/pyproject.toml" ] || die 2 "$root holds no sources of musgd" \
            "$self --offline $(quoted "$root")${asked:+ $asked}"
        refuse_extras
        source_sum=$(source_sum)
    fi
    what=$extras
    need_gb=$BENCH_GB
    torch_step=
    if trains; then
        need_gb=$CPU_TORCH_GB
        ! has_gpu || need_gb=$CUDA_TORCH_GB
        # On ARM PyPI's own is for the CPU, up to where pyproject.toml lets it go.
        [ -n "$offline" ] || [ "$programs" != x86_64 ] || torch_step=yes
    fi
    case ,$extras, in *,litert-export,*) need_gb=$((need_gb + EXPORT_GB)) ;; esac
    case ,$extras, in *,tensorrt,*) need_gb=$((need_gb + TENSORRT_GB)) ;; esac
    wanted="$source_sum $extras${torch_step:+ $(torch_kind)}"
    packages=$(missing_packages)
    packages=${packages% }
    if [ -n "$packages" ] && [ -n "$no_apt$offline" ]; then
        die 3 "missing: $packages" "sudo apt-get install $packages"
    fi
}

# pip only warns of an extra that there is not.
refuse_extras() {
    known=$(awk '/^\[/ { on = $0 == "[project.optional-dependencies]" } on && /^[a-z-]+ *=/ { print $1 }' \
        "$root/pyproject.toml")
    for name in $(printf '%s\n' "$extras" | tr ',' ' '); do
        printf '%s\n' "$known" | grep -qxF -e "$name" || die 2 "musgd has no extra $name" \
            "--extras, of $(printf '%s\n' "$known" | awk '{ printf "%s%s", c, $0; c = ", " }')"
    done
}

trains() {
    case ,$extras, in
        *,train,* | *,quantize,* | *,prune,* | *,tune,* | *,litert-export,*) ;;
        *) return 1 ;;
    esac
}

has_new_python() {
    if [ -n "$tree" ]; then
        python_version=$(recorded_python)
        [ -z "$python_version" ] || [ "${python_version#*.}" -ge 11 ]
    else
        [ -n "${MUSGD_PYTHON-}" ] || (find_board_python) 2>/dev/null
    fi
}

# The one that was chosen for this prefix, as long as it is there.
find_board_python() {
    python=$(chosen python)
    if [ -n "${MUSGD_PYTHON-}" ] || [ -z "$python" ] || ! new_enough; then
        find_python
    fi
}

plan_agent() {
    if [ -n "$tree" ]; then
        python_version=$(recorded_python)
    else
        python=python3
        python_version=$("$python" -I -c "import platform, sys
print(platform.python_version() if sys.version_info >= $OLDEST_AGENT_PYTHON else '')" 2>/dev/null) ||
            :
        [ -n "$python_version" ] || die 3 "python3 is missing or too old: the agent needs 3.6" \
            "flash JetPack 4.6, which has it"
    fi
    agent_file=$root/musgd_cli/board/nano_agent.py
    [ -f "$agent_file" ] || die 2 "$root holds no agent for a $title" "run install.sh of a checkout of musgd"
    source_sum=$(sha256sum <"$agent_file")
    wanted="agent ${source_sum%% *}"
    if [ -z "$tree" ] && [ ! -x /usr/src/tensorrt/bin/trtexec ]; then
        warn "/usr/src/tensorrt/bin/trtexec is missing, which builds and runs the engines" \
            "sudo apt-get install tensorrt"
    fi
}

refuse_userland() {
    if [ "$bits" = 32 ]; then
        die 3 "$title: the system is 32-bit, and the engines have no 32-bit wheels" \
            "flash the 64-bit image of the system, then run $self again"
    fi
    case $programs in
        x86_64 | aarch64 | '') ;;
        *) die 3 "the engines have no wheels for $programs" "use a 64-bit ARM board or x86-64" ;;
    esac
}

read_board_python() {
    if [ -z "$tree" ]; then
        find_board_python
        facts=$("$python" -P -c 'import platform, sys; print(platform.python_version(), sys.base_prefix)')
        python_version=${facts%% *}
        base="$(minor) ${facts#* }"
        return
    fi
    has_new_python ||
        die 3 "Python $python_version is too old: musgd needs 3.11 or newer" \
            "install a newer one beside it, then MUSGD_PYTHON=/path/to/python3.11 $self"
}

minor() {
    printf '%s\n' "$python_version" | cut -d. -f1,2
}

# joined LIST: each name once, in order.
joined() {
    printf '%s\n' "$1" | tr ',' '\n' | awk 'NF && !seen[$0]++ { printf "%s%s", c, $0; c = "," }'
}

# One sum over all that would be installed from here: a changed checkout is installed anew.
source_sum() {
    (
        cd "$root" || exit
        find musgd_cli profiles pyproject.toml -type f ! -name '*.pyc' -exec sha256sum {} + |
            LC_ALL=C sort | sha256sum
    ) | sed 's/ .*//'
}

# Sets extras and source_sum of a wheelhouse, every file of which is as it was made.
read_wheelhouse() {
    [ -f "$offline/SHA256SUMS" ] || die 2 "$offline is no wheelhouse" \
        "musgd wheelhouse --target $board on a machine with a network makes one"
    facts=$("${python:-python3}" -I - "$offline" "$(minor)" "$programs" "$board" \
        "$extras" <<'EOF'
import hashlib, json, pathlib, sys

house = pathlib.Path(sys.argv[1])
python, machine, board, extras = sys.argv[2:]


def refuse(code, what, mend):
    print(code, what, mend, sep="\n")
    sys.exit()


again = "copy the wheelhouse again, or make it anew with musgd wheelhouse"
listed = {}
try:
    for line in (house / "SHA256SUMS").read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not name:
            raise ValueError(line)
        listed[name] = digest
except (OSError, ValueError):
    refuse(1, "SHA256SUMS of the wheelhouse is damaged", again)
for name, digest in listed.items():
    found = hashlib.sha256()
    try:
        with (house / name).open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                found.update(block)
    except OSError:
        refuse(1, f"{name} of the wheelhouse is missing", again)
    if found.hexdigest() != digest:
        refuse(1, f"{name} of the wheelhouse is damaged", again)
for wheel in house.glob("*.whl"):
    if wheel.name not in listed:
        refuse(1, f"{wheel.name} was not in the wheelhouse when it was made", again)
if "wheelhouse.json" not in listed:
    refuse(1, "wheelhouse.json of the wheelhouse is not in its sums", again)
if not any(name.startswith("musgd_cli-") and name.endswith(".whl") for name in listed):
    refuse(1, "musgd's own wheel is not in the wheelhouse's sums", again)
try:
    made = json.loads((house / "wheelhouse.json").read_text("utf-8"))
    ",".join([made["machine"], *made["pythons"], *made["extras"]])
except (OSError, ValueError, KeyError, TypeError):
    refuse(1, "wheelhouse.json of the wheelhouse cannot be read", again)
anew = f"musgd wheelhouse --target {board}"
if machine and made["machine"] != machine:
    refuse(3, f"the wheelhouse is for {made['machine']}, and this is {machine}", anew)
if python and python not in made["pythons"]:
    has = " and ".join(made["pythons"])
    refuse(3, f"the wheelhouse is for Python {has}, and this is {python}", f"{anew} --python {python}")
lacking = [name for name in extras.split(",") if name and name not in made["extras"]]
if lacking:
    refuse(2, f"the wheelhouse has no {lacking[0]}", f"{anew} --extras {extras}")
print(0, ",".join(made["extras"]), "", sep="\n")
EOF
    ) || die 2 "$offline is no wheelhouse that can be read" \
        "make it anew with musgd wheelhouse --target $board"
    {
        read -r code
        read -r answer
        read -r mend || :
    } <<EOF
$facts
EOF
    [ "$code" = 0 ] || die "$code" "$answer" "$mend"
    extras=$answer
    source_sum=$(sha256sum <"$offline/SHA256SUMS")
    source_sum=${source_sum%% *}
}

# Of Debian's packages those that are not there. What cannot be asked of a recorded machine, or where
# there is no dpkg-query, is left to the steps themselves.
missing_packages() {
    [ -z "$tree" ] || return 0
    command -v dpkg-query >/dev/null || return 0
    list=libstdc++6
    "$python" -P -c 'import ensurepip, venv' 2>/dev/null || list="$(venv_package) $list"
    for package in $list; do
        # Of two architectures there are two lines, and dpkg -s would tell of neither.
        dpkg-query -W -f='${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -q '^.i' ||
            printf '%s ' "$package"
    done
}

# What is there and was not made by us is neither overwritten nor, later, removed.
refuse_foreign() {
    refuse_manifest
    names=venv
    [ "$kind" = venv ] || names='nano_agent.py musgd agent.stamp'
    for name in $names ${with_swap:+swap}; do
        ! is_there "$prefix/$name" || is_ours "$name" ||
            die 2 "$prefix/$name was not made by this script" \
                "move it out of the way, or choose another --prefix"
    done
}

refuse_place() {
    place=$(nearest_folder "$prefix")
    [ -w "$place" ] || die 1 "cannot write to $place" "--prefix, a folder you may write to"
    need_disk "$need_gb" "$place"
}

# No option moves the link, and musgd works without it: then link is empty.
plan_link() {
    place=$(nearest_folder "$(dirname "$link")")
    [ ! -w "$place" ] && [ "$(readlink "$link" 2>/dev/null)" != "$target" ] || return 0
    warn "cannot write to $place, so there will be no command musgd" "$(quoted "$target") doctor"
    link=
}

refuse_link() {
    ! is_there "$link" || leads_here "$link" || die 2 "$link is there already and leads elsewhere" \
        "move it out of the way, then run $self again"
}

# A Raspberry Pi has no battery-backed clock: offline it starts in its image's past, where no
# certificate is valid yet. This script cannot have come later than now.
refuse_clock() {
    [ -z "$offline" ] && [ "$kind" != agent ] || return 0
    [ "$(date +%s)" -gt $(($(stat -c %Y "$root/install.sh") - 86400)) ] ||
        die 3 "the clock says $(date +%Y-%m-%d), which is before this script came here" \
            "sudo timedatectl set-ntp true, then run $self again"
}

nearest_folder() {
    folder=$1
    while [ ! -d "$folder" ]; do
        folder=$(dirname "$folder")
    done
    printf '%s\n' "$folder"
}

warn_memory() {
    [ -n "$ram_mb" ] || return 0
    if [ "$kind" = venv ] && trains; then
        job=train least=$TRAINS_MB
    else
        job=bench least=$RUNS_MB
    fi
    [ "$ram_mb" -lt "$least" ] && [ -z "$with_swap" ] || return 0
    warn "$ram_mb MB of memory: $least to $job without swapping" \
        "--with-swap adds $SWAP_MB MB until the next start"
}

print_plan() {
    printf '%-9s %s\n' board "$board: $title ($decided_by)"
    printf '%-9s %s\n' system "${programs:-unknown architecture}, Python ${python_version:-unknown}, ${ram_mb:-?} MB"
    if [ "$kind" = agent ]; then
        printf '%-9s %s\n' agent "$agent_file -> $prefix/nano_agent.py"
    else
        if [ -n "$tree" ]; then
            printf '%-9s %s\n' apt 'python3-venv libstdc++6, where they are missing'
        else
            printf '%-9s %s\n' apt "${packages:-nothing is missing}"
        fi
        printf '%-9s %s\n' venv "$venv"
        printf '%-9s %s\n' musgd "with $extras, from ${offline:-$root}"
        if trains; then
            printf '%-9s %s\n' torch "$(torch_source)"
        else
            printf '%-9s %s\n' torch 'none: this board runs models, --extras train adds it'
        fi
    fi
    [ -z "$with_swap" ] || printf '%-9s %s\n' swap "$prefix/swap, $SWAP_MB MB, until the next start"
    printf '%-9s %s\n' command "${link:-$target}"
    printf '%-9s %s\n' disk "$need_gb GB"
}

torch_source() {
    if [ -n "$offline" ]; then
        echo 'of the wheelhouse'
    elif [ "$programs" = aarch64 ]; then
        echo 'below 2.10: later ones stop on a Cortex-A72, or want CUDA'
    elif has_gpu; then
        echo 'with CUDA'
    else
        echo "for the CPU, from ${MUSGD_TORCH_INDEX:-$CPU_INDEX}"
    fi
}
