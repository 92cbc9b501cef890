#!/usr/bin/env bash
# Makes the pictures of README.md anew: real screens of ./kmi-tui in a terminal of 110×32, as SVG. The run is a recording
# (release.ndjson, thinned); the other screens are those of this repository's catalogue, with an empty cache.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/docs/pictures
work=$(mktemp -d)
screen=0
tmux() { command tmux -L "kmi-pictures-$$-$screen" -f /dev/null "$@"; }
trap 'tmux kill-server 2>/dev/null || true; rm -rf "$work"' EXIT
freeze() { ${GO:-go} run github.com/charmbracelet/freeze@v0.2.2 "$@"; }

# show COMMAND: runs it in a fresh terminal
show() {
    tmux kill-server 2>/dev/null || true
    screen=$((screen + 1))
    tmux new-session -d -x 110 -y 32 "COLORTERM= TERM=xterm-256color HOME=$work $1"
}

# await TEXT: waits until it is on the screen
await() {
    for _ in $(seq 200); do
        if tmux capture-pane -p | grep -qF -- "$1"; then return; fi
        sleep 0.1
    done
    echo "no “$1” on the screen:" >&2
    tmux capture-pane -p >&2
    exit 1
}

# picture NAME: what is on the screen
picture() {
    # freeze knows neither the default colour nor faint.
    tmux capture-pane -pe | sed -E 's/\x1b\[2m\x1b\[39m/\x1b[0m\x1b[38;5;245m/g; s/\x1b\[39m/\x1b[0m/g; s/\x1b\[49m//g; s/\x1b\[2m/\x1b[0m\x1b[38;5;245m/g' >"$work/$1.ansi"
    freeze "$work/$1.ansi" --language ansi --font.family monospace --font.file '' --padding 12 --output "$out/$1.svg" >/dev/null
    echo "docs/pictures/$1.svg"
}

show "./kmi-tui --registry dir:images --cache $work/cache"
await 'q quit' # frames are drawn from top to bottom
picture chart
tmux send-keys / debian Enter L
await 'Where to?'
tmux send-keys Enter
await 'unproven'
await ' below'
picture promotion
tmux send-keys Escape
await 'release chart'
tmux send-keys T
await 'VirtualMachine'
await ' below'
picture tryme

show "./kmi-tui replay docs/pictures/release.ndjson --speed 32"
await "4 of 12 checks"
tmux send-keys P
await 'paused'
picture run
show "./kmi-tui replay docs/pictures/release.ndjson --speed max"
await 'how the run ended'
await '1 message'
picture summary
