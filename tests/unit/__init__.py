"""Tests of single modules: no process, no kubelet, no root."""
