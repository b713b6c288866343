#!/bin/bash
# bpf.sh SOURCE OBJECT: compiles one of the eBPF programs; the Makefile and setup.py share it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
machine=$(clang -print-multiarch 2>/dev/null || gcc -print-multiarch)
mkdir -p "$(dirname "$2")"
# What it says of its source, in the verifier's messages too, does not depend on where that lies.
exec clang -O2 -g -Wall -Wextra -Werror -target bpf -ffile-prefix-map="$root"=. \
    -I"$root/common/fastpath" -I"/usr/include/$machine" -c "$1" -o "$2"
