#!/bin/sh
# Stands for docker where the CDK builds and pushes the capture image: no emulated AWS runs it, and the test takes the
# program from the directory that would have gone into it. No image is there yet; everything else succeeds.
[ "$1" != inspect ]
