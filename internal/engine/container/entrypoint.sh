#!/bin/sh
# Prints what is known of this image. POSIX sh, its builtins and cat.
dir=${KMI_DIR:-/kmi}

usage() {
    echo "usage: entrypoint.sh [all | json | packages | licenses | list | help | FIELD...]"
    echo "  all       every field (also without arguments)"
    echo "  json      the same as one JSON object"
    echo "  packages  the guest's packages with their versions"
    echo "  licenses  the guest's licence texts"
    echo "  list      the names of the fields"
}

all() {
    while read -r name; do
        while read -r value || [ -n "$value" ]; do
            echo "$name: $value"
        done <"$dir/fields/$name"
    done <"$dir/names"
}

one() {
    case $1 in
    all) all ;;
    json) cat "$dir/metadata.json" ;;
    packages) cat "$dir/packages.txt" ;;
    licenses | licences) cat "$dir/licenses.txt" ;;
    list) cat "$dir/names" ;;
    help | -h | --help) usage ;;
    *)
        while read -r name; do
            if [ "$name" = "$1" ]; then
                cat "$dir/fields/$name"
                return
            fi
        done <"$dir/names"
        echo "unknown field: $1; there are:" >&2
        cat "$dir/names" >&2
        exit 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- all
for word; do
    one "$word"
done
