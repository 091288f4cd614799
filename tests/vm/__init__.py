"""Tests in virtual machines: Debian with isolated CPUs in qemu, without hardware acceleration."""
