#!/bin/sh
# Remove from /opt/venv what no process of an image loads. Prints nothing; fails if a part to remove is not there, so
# that a new version of a package is noticed. Usage: trim.sh PART..., paths below site-packages, besides what always goes.
set -eu
cd /opt/venv/lib/python*/site-packages
for part; do rm -r ./$part; done
# Tests, sources of compiled modules, and maps that only a browser's debugger reads.
find . -type d -name tests -prune -exec rm -r {} +
find . -type f \( -name '*.map' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.cpp' \
    -o -name '*.h' -o -name '*.hpp' -o -name '*.a' \) -delete
# Descriptions of some hundred AWS services, of which S3 and its credentials are used.
if [ -d botocore/data ]; then
    find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name 'sso*' ! -name sts ! -name signin -exec rm -r {} +
fi
# Symbols for debuggers: 90 MB. Not in *.libs, whose ELF headers a wheel's builder has moved.
find . -type f -name '*.so' -size +200k ! -path './*.libs/*' -exec strip --strip-unneeded {} +
