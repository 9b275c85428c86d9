#!/bin/sh
# Installs learn2learn 0.2.0, which pip alone no longer can: the C sources in its archive were made for a Python before
# 3.11, so they are made anew from its Cython sources. In the environment of benchmarks/requirements.txt:
#
#     sh benchmarks/peers/learn2learn.sh
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m pip install -q "cython<3" setuptools wheel requests tqdm
python -m pip install -q --no-build-isolation gym==0.26.2
python -m pip download -q --no-deps --no-build-isolation --no-binary learn2learn -d "$folder" learn2learn==0.2.0
tar -xzf "$folder"/learn2learn-0.2.0.tar.gz -C "$folder"
cd "$folder"/learn2learn-0.2.0
cythonize -q -f -3 learn2learn/data/*.pyx
python -m pip install -q --no-deps --no-build-isolation .
