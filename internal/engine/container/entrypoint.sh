#!/bin/sh
# Prints what this image says of itself. POSIX sh, its builtins and cat.
kmi=${KMI_DIR:-/kmi}

usage() {
    printf '%s\n' \
        'usage: /entrypoint.sh [all | json | packages | licenses | list | help | FIELD...]' \
        '  all        every field, as NAME: VALUE (also without arguments)' \
        '  json       the same as one JSON object' \
        '  packages   the packages of the guest, with their versions' \
        '  licenses   the licence texts of the guest' \
        '  list       the names of the fields' \
        '  FIELD      the value of one field; of several: NAME: VALUE'
}

# lines FILE PREFIX: every line of a file, with a prefix
lines() {
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s%s\n' "$2" "$line"
    done <"$1"
}

# spell WORD: sets $word to the name that WORD means
spell() {
    word=$1
    case $word in
    -h | --help | '-?') word=help ;;
    licences) word=licenses ;;
    esac
    while :; do
        case $word in
        *_*) word=${word%%_*}-${word#*_} ;;
        *) break ;;
        esac
    done
}

# known WORD: is there something of this name?
known() {
    case $1 in
    all | json | packages | licenses | list | help) return 0 ;;
    esac
    while IFS= read -r name; do
        [ "$name" = "$1" ] && return 0
    done <"$kmi/fields.txt"
    return 1
}

show() {
    case $1 in
    all)
        while IFS= read -r field; do
            lines "$kmi/fields/$field" "$field: " || return
        done <"$kmi/fields.txt"
        ;;
    json) cat "$kmi/metadata.json" ;;
    packages) cat "$kmi/packages.txt" ;;
    licenses)
        while IFS= read -r file; do
            printf '===== %s\n' "$file"
            cat "$kmi/licenses/$file" || return
            printf '\n'
        done <"$kmi/licenses.txt"
        ;;
    list) cat "$kmi/fields.txt" ;;
    help) usage ;;
    *)
        if [ -n "$several" ]; then
            lines "$kmi/fields/$1" "$1: "
        else
            lines "$kmi/fields/$1" ''
        fi
        ;;
    esac
}

[ $# -gt 0 ] || set -- all
for arg; do
    spell "$arg"
    known "$word" && continue
    printf 'no such field: %s\nthere are all, json, packages, licenses, list, help and:\n' "$arg" >&2
    cat "$kmi/fields.txt" >&2
    exit 2
done
several=
[ $# -eq 1 ] || several=yes
for arg; do
    spell "$arg"
    show "$word" || exit 1
done
