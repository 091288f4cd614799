"""Tests on a whole machine: Debian with isolated CPUs in qemu, without hardware acceleration."""
