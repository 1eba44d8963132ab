# The installation for the board it runs on: detect, plan, look whether it can work, ask, do, and
# note what was made so that it can be undone. install.sh sources it, with detect.sh and plan.sh.
# shellcheck shell=sh disable=SC2034,SC2154 # what it sets is read there, and the reverse

SWAP_MB=2048
MANIFEST_HEAD="# What musgd's install.sh has made; its --uninstall reads it."
# All that is ever made in the prefix, and so all that is ever removed there.
NAMES='venv nano_agent.py musgd agent.stamp swap'
# TensorRT comes as source packages that fetch NVIDIA's library; all else comes as wheels.
SOURCE_PACKAGES=tensorrt,tensorrt-cu12,tensorrt-cu12-libs,tensorrt-cu13,tensorrt-cu13-libs

board_main() {
    asked=$(quoted "$@")
    read_options "$@"
    venv=$prefix/venv
    state=$venv/musgd
    manifest=$prefix/manifest
    link=$HOME/.local/bin/musgd
    target=$venv/bin/musgd
    if [ -n "$uninstalling" ]; then
        uninstall
        return
    fi
    table=$root/installer/boards.txt
    detect
    make_plan
    if [ -n "$dry_run" ]; then
        print_plan
        return
    fi
    if is_done; then
        printf 'nothing to do: musgd with %s is installed in %s\n' "$what" "$prefix" >&2
        return
    fi
    print_plan >&2
    confirm '; ./install.sh demo stays in this folder'
    trap interrupted HUP INT TERM
    trap leave EXIT
    made=''
    make_folder "$prefix"
    note "$made"
    install_packages
    add_swap
    if [ "$kind" = agent ]; then
        install_agent
    else
        install_venv
    fi
    note_choices
    link_command
    leave
    trap - HUP INT TERM EXIT
    command=musgd
    [ -n "$link" ] || command=$(quoted "$target")
    printf 'musgd with %s is installed; %s doctor tells what this board can do\n' "$what" "$command" >&2
    case $link:$PATH: in
        :* | *:"$HOME/.local/bin":*) ;;
        *) warn "$HOME/.local/bin is not on the PATH" "$(quoted "$link") doctor, or log in again" ;;
    esac
}

read_options() {
    # Whatever is read before it is set, for our variables may be somebody's environment too.
    python='' tree='' dry_run='''' yes='' extras='' no_apt='' offline='' with_swap='' uninstalling=''
    [ -n "${HOME-}" ] || die 2 "HOME is not set" "HOME=/home/you $self"
    prefix=${XDG_DATA_HOME:-$HOME/.local/share}/musgd
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix | --extras | --offline | --root)
                [ -n "${2-}" ] || die 2 "$1 needs a value" "$self --help"
                case $1 in
                    --extras) extras=$2 ;;
                    --prefix) prefix=$2 ;;
                    --offline) offline=$(real "$2") ;;
                    --root) tree=$(real "$2") ;;
                esac
                shift
                ;;
            --dry-run) dry_run=yes ;;
            --yes) yes=yes ;;
            --no-apt) no_apt=yes ;;
            --with-swap) with_swap=yes ;;
            --uninstall) uninstalling=yes ;;
            *) die 2 "no such option: $1" "$self --help" ;;
        esac
        shift
    done
    prefix=$(real "$prefix")
    [ "$tree" != / ] || tree=
    if [ -n "$tree" ]; then
        [ -n "$dry_run" ] || die 2 "--root reads a recorded machine, on which nothing can be installed" \
            "$self --dry-run --root $(quoted "$tree")"
        [ -d "$tree" ] || die 2 "$tree is no folder" "--root, the root of a recorded machine"
    fi
    case $extras in
        *[!a-z,-]*) die 2 "--extras $extras is no list of names" "--extras train,report" ;;
    esac
}

# real PATH: absolute and without links, so that a place has one spelling, even if it is not there.
real() {
    case $1 in
        /*) near=$1 ;;
        *) near=$PWD/$1 ;;
    esac
    rest=
    until [ -d "$near/" ]; do
        case ${near##*/} in
            '' | .) ;;
            ..) die 2 "$1 leads through a folder that is not there" "write it without the .." ;;
            *) rest=/${near##*/}$rest ;;
        esac
        near=${near%/*}
    done
    near=$(cd "$near/" && pwd -P) || die 1 "cannot enter $near" "name a folder that you may enter"
    near=${near%/}$rest
    printf '%s\n' "${near:-/}"
}

# ---- doing it -------------------------------------------------------------------------------------

is_done() {
    [ -z "$packages" ] && [ -x "$target" ] || return 1
    [ -z "$link" ] || [ "$(readlink "$link" 2>/dev/null)" = "$target" ] || return 1
    [ -z "$with_swap" ] || has_swap || return 1
    if [ "$kind" = agent ]; then
        [ -f "$prefix/nano_agent.py" ] && grep -qsxF "$wanted" "$prefix/agent.stamp"
    else
        [ -x "$venv/bin/python" ] && [ "$(cat "$state/venv" 2>/dev/null)" = "$base" ] &&
            [ "$(cat "$state/musgd" 2>/dev/null)" = "$wanted" ]
    fi
}

# confirm HINT: what else there is to do where nobody can be asked.
confirm() {
    [ -z "$yes" ] || return 0
    if [ ! -t 0 ] || [ ! -t 2 ]; then
        die 2 "nobody is there to ask, and nothing is done without a yes" \
            "$self --yes${asked:+ $asked} goes on, --dry-run shows the plan alone${1-}"
    fi
    printf 'Go on? [y/N] ' >&2
    read -r answer
    case $answer in
        [yY]*) ;;
        *)
            printf 'nothing was changed\n' >&2
            exit 1
            ;;
    esac
}

# make_folder DIR: with its parents; made lists the new ones.
make_folder() {
    [ ! -d "$1" ] || return 0
    make_folder "$(dirname "$1")"
    mkdir "$1" 2>/dev/null || die 1 "cannot make $1" "--prefix, a folder you may write to"
    made="${made}folder $1
"
}

# note LINES: of what was made, before it is, so that it is undone even after a half installation.
note() {
    [ -e "$manifest" ] || printf '%s\n' "$MANIFEST_HEAD" >"$manifest"
    printf '%s' "$1" | while IFS= read -r line; do
        grep -qsxF "$line" "$manifest" || printf '%s\n' "$line" >>"$manifest"
    done
}

# What a person chose, for the next run too: a mend line knows nothing of it. It is noted once it is
# there, for what cannot be installed is not to stay in the way.
note_choices() {
    [ -z "${MUSGD_BOARD-}" ] || note_choice board "$board"
    [ "$kind" = venv ] || return 0
    [ -z "${MUSGD_PYTHON-}" ] || note_choice python "$(real "$(command -v "$python")")"
    # That there is any extra is what a board for the agent gets musgd by.
    [ "$agent" = no ] || own_extras=
    note_choice extras "$(joined "$(printf '%s\n' "$extras" | tr ',' '\n' |
        grep -vxF -e "$(printf '%s\n' "$own_extras" | tr ',' '\n')")")"
}

# note_choice KEY VALUE: the last one of a key is the one that holds.
note_choice() {
    [ "$(chosen "$1")" = "$2" ] || printf '%s %s\n' "$1" "$2" >>"$manifest"
}

# chosen KEY
chosen() {
    [ "$(head -n 1 "$manifest" 2>/dev/null)" = "$MANIFEST_HEAD" ] || return 0
    sed -n "s/^$1 //p" "$manifest" | tail -n 1
}

refuse_manifest() {
    is_there "$manifest" || return 0
    [ "$(head -n 1 "$manifest" 2>/dev/null)" = "$MANIFEST_HEAD" ] ||
        die 2 "$manifest was not written by this script" "move it out of the way, or choose another --prefix"
}

is_there() {
    [ -e "$1" ] || [ -L "$1" ]
}

# is_ours NAME: of NAMES, as the manifest has it.
is_ours() {
    grep -qsxF "made $1" "$manifest"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die 3 "$1 needs root, and there is no sudo" "run it as root: $(quoted "$@")"
    fi
}

install_packages() {
    [ -n "$packages" ] || return 0
    printf 'apt-get install %s\n' "$packages" >&2
    note "apt $packages
"
    # shellcheck disable=SC2086 # one package a word
    as_root apt-get install --yes --no-install-recommends $packages >&2 </dev/null || {
        # A fresh image has lists that are months old.
        as_root apt-get update >&2 </dev/null &&
            as_root apt-get install --yes --no-install-recommends $packages >&2 </dev/null
    } || die 1 "apt-get failed" "sudo apt-get install $packages, then run $self again"
}

# The kernel writes spaces and backslashes in octal; awk would take them back out of a -v.
has_swap() {
    file=$(printf '%s\n' "$prefix/swap" | sed 's/\\/\\134/g; s/ /\\040/g') \
        awk 'NR > 1 && $1 == ENVIRON["file"] { found = 1 } END { exit !found }' /proc/swaps
}

# Never without its flag; of this start alone, so no boot file knows of it.
add_swap() {
    [ -n "$with_swap" ] || return 0
    ! has_swap || return 0
    note "made swap
"
    printf '%s MB of swap in %s\n' "$SWAP_MB" "$prefix/swap" >&2
    {
        as_root dd if=/dev/zero of="$prefix/swap" bs=1048576 count="$SWAP_MB" 2>/dev/null &&
            as_root chmod 600 "$prefix/swap" &&
            as_root mkswap "$prefix/swap" >/dev/null && as_root swapon "$prefix/swap"
    } || {
        as_root rm -f "$prefix/swap" || :
        die 1 "the swap file $prefix/swap could not be made" "run $self without --with-swap"
    }
}

install_venv() {
    venv_name=$venv
    disk_folder=$prefix
    steps=2
    [ -z "$torch_step" ] || steps=3
    note "made venv
"
    distrust_stamps
    # pip's cache is ours to clear away, unless someone has chosen one.
    export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$state/cache}"
    ensure venv "$base" make_venv
    if [ -n "$torch_step" ]; then
        board_base=$base
        board_wanted=$wanted
        read_project
        base=$board_base
        wanted=$board_wanted
        ensure torch "$(torch_kind) $torch" install_torch
    fi
    ensure musgd "$wanted" install_for_board
    rm -rf "$state/cache"
}

install_for_board() {
    begin_step "musgd with $extras"
    set --
    if [ -n "$offline" ]; then
        set -- --no-index --find-links "$offline"
        for own in "$offline"/musgd_cli-*.whl; do :; done
    else
        own=$root
    fi
    case ,$extras, in
        *,tensorrt,*) set -- "$@" --only-binary :all: --no-binary "$SOURCE_PACKAGES" ;;
        *) set -- "$@" --only-binary :all: ;;
    esac
    # Of the same version, pip would keep the code that is there.
    logged "$venv/bin/python" -P -m pip uninstall --yes musgd-cli || explain "pip failed"
    pip_install "$@" "${own}[$extras]"
    swap_opencv "$@"
    for module in $(modules); do
        smoke_import_of "$module"
    done
}

# What the extras bring that was built for one kind of CPU.
modules() {
    printf '%s\n' cv2 numpy
    case ,$extras, in *,ncnn,*) echo ncnn ;; esac
    case ,$extras, in *,onnx,*) echo onnxruntime ;; esac
    case ,$extras, in *,litert,*) echo ai_edge_litert.interpreter ;; esac
    case ,$extras, in *,openvino,*) echo openvino ;; esac
    case ,$extras, in *,tensorrt,*) echo tensorrt ;; esac
    ! trains || printf '%s\n' torch torchvision
    echo musgd_cli
}

# smoke_import_of MODULE, its telemetry shut as musgd_cli/runtime/telemetry.py does.
smoke_import_of() {
    code=0
    logged env ORT_DISABLE_TELEMETRY=1 "$venv/bin/python" -P -c \
        "import sys; sys.modules['openvino_telemetry'] = None; import $1" || code=$?
    [ "$code" -ne 0 ] || return 0
    case $1 in
        cv2) package=opencv-python-headless ;;
        ai_edge_litert*) package=ai-edge-litert ;;
        *) package=$1 ;;
    esac
    [ "$code" -eq 132 ] || explain "importing $1 failed"
    version=$("$venv/bin/python" -P -c \
        'import sys; from importlib.metadata import version as v; print(v(sys.argv[1]))' "$package")
    die 3 "the wheel of $package $version is for another CPU (illegal instruction)" \
        "avoid it: echo '$package<$version' >avoid.txt; PIP_CONSTRAINT=avoid.txt $self"
}

install_agent() {
    note "made nano_agent.py
made musgd
made agent.stamp
"
    rm -f "$prefix/agent.stamp"
    cp "$agent_file" "$prefix/nano_agent.py"
    cat >"$prefix/musgd" <<'EOF'
#!/bin/sh
# musgd for a board whose Python is too old for it: bench and doctor.
exec python3 "$(dirname "$(readlink -f "$0")")/nano_agent.py" "$@"
EOF
    chmod 755 "$prefix/musgd"
    "$prefix/musgd" --help >/dev/null || die 1 "the agent does not start" "python3 $(quoted "$prefix/nano_agent.py") --help"
    printf '%s\n' "$wanted" >"$prefix/agent.stamp"
}

link_command() {
    [ -n "$link" ] || return 0
    made=''
    make_folder "$(dirname "$link")"
    note "${made}link $link
"
    ln -sf "$target" "$link"
}

# ---- undoing it -----------------------------------------------------------------------------------

# The names that the manifest has of NAMES go, and the links that still lead here. No other path is
# taken from it but those of folders above them, which go where they are empty then.
uninstall() {
    if ! is_there "$manifest"; then
        printf 'nothing to do: musgd is not installed in %s\n' "$prefix" >&2
        return
    fi
    refuse_manifest
    links=$(sed -n 's/^link //p' "$manifest") # one of each HOME that this prefix was used from
    if [ -n "$dry_run" ]; then
        what_is_left | sed 's/^/remove /'
        return
    fi
    what_is_left | sed 's/^/remove /' >&2
    confirm
    for name in $NAMES; do
        is_ours "$name" || continue
        case $name in
            venv) rm -rf "${prefix:?}/venv" || : ;;
            swap) remove_swap ;;
            *) rm -f "$prefix/$name" || : ;;
        esac
    done
    our_links | while IFS= read -r link; do
        rm -f "$link" || :
    done
    left=$(what_is_left)
    [ -z "$left" ] || die 1 "still there: $(printf '%s' "$left" | tr '\n' ' ')" \
        "see to it that you may remove them, then run $self --yes $asked again"
    packages=$(sed -n 's/^apt //p' "$manifest" | tr '\n' ' ')
    # The last one made is the innermost.
    folders=$(sed -n 's/^folder //p' "$manifest" | sed '1!G; h; $!d')
    rm -f "$manifest"
    while IFS= read -r folder; do
        case "
$prefix/
$links" in
            *"
$folder"/*) rmdir "$folder" 2>/dev/null || : ;;
        esac
    done <<EOF
$folders
EOF
    printf 'musgd is gone from %s\n' "$prefix" >&2
    [ -z "$packages" ] || printf 'kept: %s, which other programs may use; sudo apt-get remove them if none does\n' \
        "${packages% }" >&2
}

what_is_left() {
    for name in $NAMES; do
        ! is_ours "$name" || ! is_there "$prefix/$name" || printf '%s\n' "$prefix/$name"
    done
    our_links
}

our_links() {
    printf '%s\n' "$links" | while IFS= read -r link; do
        ! leads_here "$link" || printf '%s\n' "$link"
    done
}

# leads_here LINK
leads_here() {
    case $(readlink "$1" 2>/dev/null) in
        "$prefix/venv/bin/musgd" | "$prefix/musgd") ;;
        *) return 1 ;;
    esac
}

remove_swap() {
    is_there "$prefix/swap" || return 0
    ! has_swap || as_root swapoff "$prefix/swap" ||
        die 1 "$prefix/swap is in use as swap" "sudo swapoff $(quoted "$prefix/swap"), then run $self --uninstall again"
    as_root rm -f "$prefix/swap" || :
}

warn() {
    printf 'warning: %s\nmend: %s\n' "$1" "$2" >&2
}
