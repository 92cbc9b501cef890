#!/bin/bash
# Makes the keys and signatures of this folder anew, with gpg 2.2 or later, minisign, signify-openbsd and openssl.
# The secret keys are thrown away at the end. usage: ./make.sh (in this folder)
set -euo pipefail
cd "$(dirname "$0")"
rm -rf keys signed && mkdir -p keys signed
work=$(mktemp -d); trap 'gpgconf --kill all; rm -rf "$work"' EXIT
export GNUPGHOME=$work/gnupg; mkdir -m 700 "$GNUPGHOME"

gpg_at() { gpg --batch --quiet --no-tty --yes --pinentry-mode loopback --passphrase '' --faked-system-time "$@"; }
fpr() { gpg --batch --with-colons --list-keys "=$1 <$1@example.org>" | awk -F: '$1 == "fpr" {print $10; exit}'; }
made=20250101T000000; now=20250601T120000
key() { gpg_at "${4:-$made}!" --quick-gen-key "$1 <$1@example.org>" "$2" "${5:-sign}" "$3"; }
export_key() { gpg_at "$now!" --armor --export-options export-minimal --export "$(fpr "$1")" > "keys/$(fpr "$1").asc"; echo "$1 $(fpr "$1")" >> keys/names; }

key alice ed25519 never
key bob ed25519 never
key rita rsa2048 never
key weak rsa1024 never
key expired ed25519 2025-03-01
key revoked ed25519 never
key sub ed25519 never "$made" cert
gpg_at "$made!" --quick-add-key "$(fpr sub)" ed25519 sign 2025-12-31
key subrevoked ed25519 never "$made" cert
gpg_at "$made!" --quick-add-key "$(fpr subrevoked)" ed25519 sign never

# A checksum file with lines that begin with dashes and end in blanks.
cat > signed/sums <<END
# disk.qcow2: 123 bytes
SHA256 (disk.qcow2) = $(printf disk | sha256sum | cut -d' ' -f1)
- a line that begins with a dash
-----BEGIN PGP SIGNED MESSAGE-----
--- trailing blanks 	
$(printf other | sha256sum | cut -d' ' -f1)  other.qcow2
END

detach() { gpg_at "$now!" -u "$(fpr "$2")!" "${@:3}" --detach-sign -o "signed/$1" signed/sums; }
detach alice.sig alice
detach alice.asc alice --armor
detach bob.asc bob --armor
detach text.asc alice --armor --textmode
detach both.asc alice -u "$(fpr bob)" --armor
detach rita.asc rita --armor
detach sha1.asc rita --armor --digest-algo SHA1
detach weak.asc weak --armor
detach sigexpired.asc alice --armor --default-sig-expire 1d
detach revoked.asc revoked --armor
gpg_at 20250201T000000! -u "$(fpr expired)" --armor --detach-sign -o signed/expired.asc signed/sums
gpg_at 20241201T000000! --ignore-time-conflict --ignore-valid-from -u "$(fpr alice)" --armor --detach-sign -o signed/early.asc signed/sums
gpg_at "$now!" -u "$(fpr sub)" --armor --detach-sign -o signed/sub.asc signed/sums
gpg_at "$now!" -u "$(fpr subrevoked)" --armor --detach-sign -o signed/subrevoked.asc signed/sums
gpg_at "$now!" -u "$(fpr alice)" --armor --sign -o signed/inline.asc signed/sums
gpg_at "$now!" -u "$(fpr alice)" --clear-sign -o signed/clear.asc signed/sums
gpg_at "$now!" -u "$(fpr bob)" --clear-sign -o signed/clear-bob.asc signed/sums

printf 'y\n0\n\ny\n' | gpg --no-tty --quiet --command-fd 0 --pinentry-mode loopback --passphrase '' --faked-system-time "$now!" -o "$work/rev" --gen-revoke "$(fpr revoked)" 2>/dev/null
gpg_at "$now!" --import "$work/rev"
printf 'key 1\nrevkey\ny\n0\n\ny\nsave\n' | gpg --no-tty --quiet --command-fd 0 --pinentry-mode loopback --passphrase '' --faked-system-time "$now!" --edit-key "$(fpr subrevoked)" >/dev/null 2>&1
for k in alice bob rita weak expired revoked sub subrevoked; do export_key $k; done

# minisign prints a key id without leading zeros; files have all 16 digits.
for k in carol dave; do
	minisign -G -W -p "$work/$k.pub" -s "$work/$k.sec" >/dev/null
	id=$(sed -n '1s/.*key //p' "$work/$k.pub"); id=$(printf '%016s' "$id" | tr ' ' 0)
	cp "$work/$k.pub" "keys/$id.minisign"; echo "$k $id" >> keys/names
done
minisign -S -s "$work/carol.sec" -m signed/sums -x signed/carol.minisig -t 'trusted words' >/dev/null
minisign -S -l -s "$work/carol.sec" -m signed/sums -x signed/carol-old.minisig -t 'trusted words' >/dev/null
minisign -S -s "$work/dave.sec" -m signed/sums -x signed/dave.minisig -t 'trusted words' >/dev/null

for k in erin frank; do
	signify-openbsd -G -n -p "$work/$k.pub" -s "$work/$k.sec"
	id=$(sed -n 2p "$work/$k.pub" | base64 -d | od -An -tx1 -j2 -N8 | tr -d ' \n' | tr a-f A-F)
	cp "$work/$k.pub" "keys/$id.signify"; echo "$k $id" >> keys/names
done
signify-openbsd -S -s "$work/erin.sec" -m signed/sums -x signed/erin.sig
signify-openbsd -S -e -s "$work/erin.sec" -m signed/sums -x signed/erin-embedded.sig
signify-openbsd -S -s "$work/frank.sec" -m signed/sums -x signed/frank.sig

for k in grace heidi; do
	openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$work/$k.sec" 2>/dev/null
	openssl pkey -in "$work/$k.sec" -pubout -out "$work/$k.pub"
	id=$(openssl pkey -in "$work/$k.sec" -pubout -outform DER | sha256sum | cut -d' ' -f1 | tr a-f A-F)
	cp "$work/$k.pub" "keys/$id.pem"; echo "$k $id" >> keys/names
	openssl dgst -sha256 -sign "$work/$k.sec" signed/sums | base64 > "signed/$k.rsa"
done
