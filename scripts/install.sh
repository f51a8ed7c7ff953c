#!/bin/sh
# Installs the newest release of `wegeft` for this machine, checked against its published SHA-256.
#
#     WEGEFT_RELEASES=https://.../releases/latest/download sh install.sh [FOLDER]
#
# FOLDER is ~/.local/bin if not given. WEGEFT_RELEASES is where the archives are.
set -eu

releases=${WEGEFT_RELEASES:?"set WEGEFT_RELEASES to the address that holds the archives, such as https://HOST/OWNER/REPOSITORY/releases/latest/download"}
folder=${1:-"$HOME/.local/bin"}

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) target=x86_64-unknown-linux-musl ;;
Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-musl ;;
Darwin-x86_64) target=x86_64-apple-darwin ;;
Darwin-arm64) target=aarch64-apple-darwin ;;
*)
    echo "install.sh: there is no release for $(uname -s) on $(uname -m); build it with: cargo install --path experiments --bin wegeft" >&2
    exit 1
    ;;
esac

name=wegeft-$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
curl --proto '=https,http,file' --fail --silent --show-error --location --remote-name "$releases/$name.tar.gz"
curl --proto '=https,http,file' --fail --silent --show-error --location --remote-name "$releases/$name.tar.gz.sha256"
if command -v sha256sum >/dev/null; then
    sha256sum --check --quiet "$name.tar.gz.sha256"
else
    shasum -a 256 --check --quiet "$name.tar.gz.sha256"
fi
tar xzf "$name.tar.gz"
mkdir -p "$folder"
# Copied beside the old one, then renamed: a cut leaves the old program whole.
cp "$name/wegeft" "$folder/.wegeft.new"
chmod 755 "$folder/.wegeft.new"
mv "$folder/.wegeft.new" "$folder/wegeft"
echo "installed $("$folder/wegeft" --version | head -n 1) as $folder/wegeft"
