#!/bin/sh
# Install musgd for the board this runs on: ./install.sh
# Or set it up in this folder and run it: ./install.sh demo, ./install.sh test
#
# Environment:
#   MUSGD_PYTHON       the Python to use; default: the first of python3, python3.14 ... python3.11
#                      that is 3.11 or newer
#   MUSGD_TORCH_INDEX  the package index to take torch from; default: PyTorch's CPU builds where
#                      there is no NVIDIA GPU, else whatever pip is set up for
# pip's own settings (index, proxy, constraints, cache) apply as they are.
#
# demo and test put everything into .venv beside this script; remove that folder to start afresh.
# The installation goes to ~/.local/share/musgd; installer/ has its steps. Each step leaves
# a stamp once it is complete, so that the next run does only what is missing.
set -eu

EXTRAS=train,quantize,prune,onnx,openvino,ncnn,litert,report,tune
CPU_INDEX=https://download.pytorch.org/whl/cpu
INDEX_PATIENCE_S=3
# Free disk to ask for: what is installed, plus pip's downloads.
CPU_TORCH_GB=4
CUDA_TORCH_GB=10

usage() {
    cat <<'EOF'
Usage:
  ./install.sh [OPTIONS]     install musgd for this board: its engines, the command musgd
  ./install.sh demo [ARGS]   try the whole path on a built-in data set (ARGS go to musgd demo)
  ./install.sh test [ARGS]   lint, types, import contracts and tests (ARGS go to pytest)

The last two first set up .venv in this folder with what this machine needs, and keep what is
there. Afterwards musgd itself is .venv/bin/musgd.

Options of the installation:
  ./install.sh --dry-run     print the plan and change nothing
  ./install.sh --yes         do not ask
  ./install.sh --offline DIR use no network but a wheelhouse (musgd wheelhouse --target BOARD)
  ./install.sh --uninstall   remove what was installed, and nothing else
  --extras LIST              parts of musgd besides the board's own, by commas; train brings torch
  --prefix DIR               where it goes; default: ~/.local/share/musgd
  --no-apt                   install no packages of the system
  --with-swap                add 2 GB of swap until the next start
  --root DIR                 with --dry-run: plan for the machine recorded below DIR

Later runs keep the extras, MUSGD_BOARD and MUSGD_PYTHON; --uninstall forgets them.
EOF
}

main() {
    # As it is typed again, also by someone who has typed: sh install.sh
    case $0 in
        */*) self=$0 ;;
        *) self=./$0 ;;
    esac
    self=$(quoted "$self")
    root=$(dirname "$(readlink -f "$0")")
    venv=$root/.venv
    state=$venv/musgd # stamps, logs and temporary files, all of them ours
    clock=
    step=0
    venv_name=.venv
    disk_folder=$root
    case ${1-} in
        demo)
            shift
            set_up 3
            exec "$venv/bin/musgd" demo "$@"
            ;;
        test)
            shift
            set_up 4
            cd "$root"
            run_tests "$@"
            ;;
        -h | --help) usage ;;
        '' | -*)
            for part in detect plan board; do
                [ -r "$root/installer/$part.sh" ] ||
                    die 1 "installer/$part.sh is missing beside $self" "copy musgd's whole folder"
                # shellcheck source=/dev/null # they are checked with this script
                . "$root/installer/$part.sh"
            done
            board_main "$@"
            ;;
        *) die 2 "no such command: $1" "$self demo, or $self test" ;;
    esac
}

run_tests() {
    check ruff check
    check ruff format --check
    check mypy
    check lint-imports
    # All of them take minutes: a file's tests stay together, for they share what they trained.
    [ $# -gt 0 ] || set -- --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
    check pytest "$@"
}

check() {
    printf '\n== %s\n' "$*" >&2
    tool=$1
    shift
    "$venv/bin/$tool" "$@"
}

# ---- setting up --------------------------------------------------------------------------------

# set_up STEPS: 3 are what musgd needs to work, the fourth is its developers' tools.
set_up() {
    [ -f "$root/pyproject.toml" ] ||
        die 2 "$root holds no sources of musgd" "run install.sh of a checkout of musgd"
    steps=$1
    trap interrupted HUP INT TERM
    trap leave EXIT
    find_python
    read_project
    distrust_stamps
    ensure venv "$base" make_venv
    ensure torch "$(torch_kind) $torch" install_torch
    ensure musgd "$wanted" install_musgd
    [ "$steps" -lt 4 ] || ensure tools "$wanted" install_tools
    leave
    trap - HUP INT TERM EXIT
}

# ensure STEP FINGERPRINT FUNCTION: run it unless its stamp bears this fingerprint.
ensure() {
    step=$((step + 1))
    stamp=$state/$1
    log=$state/$1.log
    if [ "$(cat "$stamp" 2>/dev/null)" = "$2" ]; then
        return
    fi
    # What fails half way may have undone what the old stamp tells of.
    rm -f "$log" "$stamp"
    "$3"
    printf '%s\n' "$2" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    end_step
}

# A stamp tells what was done; what somebody has removed since is done again.
distrust_stamps() {
    [ -x "$venv/bin/python" ] || rm -f "$state/venv"
    [ -x "$venv/bin/musgd" ] || rm -f "$state/musgd"
}

make_venv() {
    begin_step "Python $python_version in $venv_name"
    if [ -e "$venv" ] && [ ! -d "$state" ]; then
        die 2 "$venv was not made by this script" "move it out of the way, then run $self again"
    fi
    if ! "$python" -P -c 'import ensurepip, venv' 2>/dev/null; then
        package=$(venv_package)
        die 3 "$python cannot make a virtual environment: $package is missing" \
            "sudo apt-get install $package"
    fi
    rm -rf "$venv"
    mkdir -p "$state" 2>/dev/null ||
        die 1 "cannot write to ${venv%/*}" "copy musgd to a folder you may write to"
    logged "$python" -P -m venv "$venv" || explain "making $venv_name failed"
}

venv_package() {
    [ "$python" = python3 ] && echo python3-venv || echo "python${python_version%.*}-venv"
}

install_torch() {
    index=${MUSGD_TORCH_INDEX-}
    if [ -z "$index" ] && ! has_nvidia_gpu; then
        index=$CPU_INDEX
    fi
    if [ -n "$index" ] && index_answers "$index"; then
        begin_step "torch from $index"
        need_disk "$CPU_TORCH_GB" "$disk_folder"
        set -- --index-url "$index"
    else
        begin_step "torch as pip finds it${index:+ ($index does not answer)}"
        need_disk "$CUDA_TORCH_GB" "$disk_folder"
        set --
    fi
    if [ "$(torch_kind)" = cuda ] && has_cpu_torch; then
        # To pip it is the version that is asked for, so it would stay.
        logged "$venv/bin/python" -P -m pip uninstall --yes torch torchvision || explain "pip failed"
    fi
    old_ifs=$IFS
    IFS='
'
    # shellcheck disable=SC2086 # one requirement a line, with spaces inside
    pip_install "$@" $torch
    IFS=$old_ifs
}

install_musgd() {
    begin_step "musgd with $EXTRAS"
    pip_install --editable "${root}[$EXTRAS]"
    # shellcheck disable=SC2119 # none of this script's own
    swap_opencv
    smoke_import
}

install_tools() {
    begin_step "musgd with dev"
    pip_install --editable "${root}[dev]"
}

# Ultralytics asks for opencv-python, whose Qt needs libraries that a bare Debian lacks. Both builds
# put their files into one folder, so the headless one is laid down anew. Takes options of pip's.
# shellcheck disable=SC2120 # installer/board.sh has some
swap_opencv() {
    version=$("$venv/bin/python" -P -c \
        'from importlib.metadata import version as v; v("opencv-python"); print(v("opencv-python-headless"))' \
        2>/dev/null) || return 0
    logged "$venv/bin/python" -P -m pip uninstall --yes opencv-python || explain "pip failed"
    pip_install "$@" --force-reinstall --no-deps "opencv-python-headless==$version"
}

# What was built for another CPU dies here, in words, and not in the middle of work.
smoke_import() {
    code=0
    logged "$venv/bin/python" -P -c 'import cv2, torch, torchvision, musgd_cli' || code=$?
    case $code in
        0) ;;
        132)
            die 3 "torch or OpenCV was built for another CPU (illegal instruction)" \
                "ask for an older one in pyproject.toml, then run $self again"
            ;;
        *) explain "a test import failed" ;;
    esac
}

pip_install() {
    # /tmp is memory on some systems; gigabytes belong on the disk whose space was looked at.
    mkdir -p "$state/tmp"
    logged env TMPDIR="$state/tmp" "$venv/bin/python" -P -m pip install --progress-bar off "$@" ||
        explain "pip failed"
}

logged() {
    "$@" >>"$log" 2>&1 </dev/null
}

# The commonest reasons by their words in the log; else its last error.
explain() {
    last=$(sed -nE 's/^ *([A-Za-z0-9._]*(Error|ERROR): .*)/\1/p' "$log" | tail -n 1)
    if grep -q 'No space left on device' "$log"; then
        die 1 "the disk is full" "free some space, then run $self again"
    elif is_unreachable; then
        die 1 "pip cannot reach its package index" \
            "check the network, the proxy and pip's settings (pip config list), then run $self again"
    fi
    die 1 "$1: ${last:-no reason given}" "read $log, then run $self again"
}

# A retry in the log may have gone well. After an outage pip ends with what it also says of a package
# that there is not; but then it had no retry left, and knew of no version.
is_unreachable() {
    case $last in
        *'Max retries exceeded'* | *'Read timed out'*) ;;
        *'No matching distribution'*)
            grep -qF 'Retry(total=0' "$log" && grep -qF 'from versions: none' "$log"
            ;;
        *) return 1 ;;
    esac
}

# ---- what this machine is ----------------------------------------------------------------------

# Python looks for modules in the folder that a person stands in first, and runs what it finds there:
# -P forbids that, and -I where the version is not known yet.

find_python() {
    if [ -n "${MUSGD_PYTHON-}" ]; then
        python=$MUSGD_PYTHON
        new_enough || die 3 "MUSGD_PYTHON=$python is no Python 3.11 or newer" \
            "unset MUSGD_PYTHON, or name one that is"
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough; then
            return
        fi
    done
    if found=$(python3 --version 2>&1); then
        die 3 "$found is too old: musgd needs 3.11 or newer" \
            "install a newer one beside it, then MUSGD_PYTHON=/path/to/python3.11 $self"
    fi
    die 3 "python3 is missing" "sudo apt-get install python3 python3-venv"
}

new_enough() {
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Sets python_version; base, what .venv stands on; wanted, what is to be in it; and torch, the
# requirements, one a line.
read_project() {
    facts=$("$python" -P - "$root" <<'EOF'
import hashlib, json, pathlib, platform, sys, tomllib

project = tomllib.loads(pathlib.Path(sys.argv[1], "pyproject.toml").read_text("utf-8"))["project"]
for part in (sys.argv[1], sys.base_prefix, sys.version_info[:2]), project:
    print(hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest())
print(platform.python_version())
print(*(r for r in project["optional-dependencies"]["train"] if r.startswith("torch")), sep="\n")
EOF
    )
    {
        read -r base
        read -r wanted
        read -r python_version
        torch=$(cat)
    } <<EOF
$facts
EOF
}

has_nvidia_gpu() {
    [ -n "$(ls /proc/driver/nvidia/gpus 2>/dev/null)" ] ||
        nvidia-smi -L 2>/dev/null | grep -q '^GPU '
}

torch_kind() {
    has_nvidia_gpu && echo cuda || echo cpu
}

has_cpu_torch() {
    "$venv/bin/python" -P -c \
        'import sys; from importlib.metadata import version as v; sys.exit(not v("torch").endswith("+cpu"))' \
        2>/dev/null
}

# A name server that hangs cannot be interrupted from Python; a timer ends the whole process.
index_answers() {
    "$python" -P - "$1" "$INDEX_PATIENCE_S" <<'EOF' 2>/dev/null
import os, sys, threading, urllib.request

threading.Timer(float(sys.argv[2]), os._exit, [1]).start()
try:
    urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/").close()
except (OSError, ValueError):
    os._exit(1)
os._exit(0)
EOF
}

# need_disk GB FOLDER
need_disk() {
    # Both the file system's name and the folder's may have spaces.
    free_gb=$(df -Pk "$2" | awk 'match($0, / -?[0-9]+ +[0-9]+% +\//) {
        split(substr($0, RSTART), part, " ")
        print int(part[1] / 1048576)
    }')
    free_gb=${free_gb:-0}
    [ "$free_gb" -ge "$1" ] ||
        die 3 "$free_gb GB are free in $2, and the installation needs $1" \
            "free some space, or use a larger disk"
}

# ---- what a person sees: all on stderr, so that stdout is the command's own --------------------

# One line a step, with a running clock where a person watches.
begin_step() {
    line="[$step/$steps] $1"
    began=$(date +%s)
    if [ ! -t 2 ]; then
        printf '%s\n' "$line" >&2
        return
    fi
    while kill -0 $$ 2>/dev/null; do # a parent that is killed outright runs no trap
        printf '\r%s  %s s' "$line" $(($(date +%s) - began)) >&2
        sleep 1
    done &
    clock=$!
}

end_step() {
    if stop_clock; then
        printf '\r%s  %s s\n' "$line" $(($(date +%s) - began)) >&2
    fi
}

# True if one was running.
stop_clock() {
    [ -n "$clock" ] || return 1
    kill "$clock" 2>/dev/null || :
    wait "$clock" 2>/dev/null || :
    clock=
}

# die CODE WHAT MEND: the two lines and the codes of musgd itself.
die() {
    if stop_clock; then
        printf '\n' >&2
    fi
    printf 'error: %s\nmend: %s\n' "$2" "$3" >&2
    exit "$1"
}

# quoted WORDS: as a shell takes them for these words again.
quoted() {
    gap=
    for word; do
        case $word in
            '' | *[!A-Za-z0-9_./=:,@%+-]*)
                word="'$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")'"
                ;;
        esac
        printf '%s' "$gap$word"
        gap=' '
    done
}

interrupted() {
    if stop_clock; then
        printf '\n' >&2
    fi
    printf 'interrupted; the next run goes on where this one stopped\n' >&2
    exit 130
}

leave() {
    stop_clock || :
    rm -rf "$state/tmp"
}

main "$@"
