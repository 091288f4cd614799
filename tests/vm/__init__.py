"""Tests on a whole machine: Debian in qemu, booted with isolated CPUs, without hardware acceleration."""
