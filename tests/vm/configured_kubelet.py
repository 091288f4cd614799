"""A kubelet in a guest that is configured as kubeadm's is: with a file, a directory, and flags.

It is the simulator under the name of a kubelet. What it reads of its configuration is what becomes
its CPU manager's state file; the plugin and the reports read the rest, as on any host.
"""

from __future__ import annotations

from .guest import Guest

PROGRAM = "/usr/local/bin/kubelet"
STATUS = "/var/lib/kubelet/node-status.json"

# A script has its own name as a process.
_PROGRAM = """\
#!/usr/bin/python3
import argparse, json, os, pathlib, runpy, sys
import yaml
from isolcpus_dp.host import cpulist

parser = argparse.ArgumentParser()
parser.add_argument("--version", action="version", version="Kubernetes v1.36.2")
parser.add_argument("--config", type=pathlib.Path)
parser.add_argument("--config-dir", type=pathlib.Path)
options = parser.parse_args()
settings = yaml.safe_load(options.config.read_text())
for file in sorted(options.config_dir.glob("*.conf")) if options.config_dir else ():
    settings.update(yaml.safe_load(file.read_text()))

state = pathlib.Path("/var/lib/kubelet/cpu_manager_state")
policy = settings.get("cpuManagerPolicy", "none")
online = cpulist.parse(pathlib.Path("/sys/devices/system/cpu/online").read_text())
shared = online - cpulist.parse(settings.get("reservedSystemCPUs", ""))
if state.exists() and json.loads(state.read_text())["policyName"] != policy:
    sys.exit(f"{state} is of another policy")
if not state.exists():
    text = cpulist.render(shared) if policy == "static" else ""
    state.write_text(json.dumps({"policyName": policy, "defaultCpuSet": text, "checksum": 0}))
sys.argv[1:] = os.environ.get("PODS", "").split()
runpy.run_module("isolcpus_dp.simulator", run_name="__main__")
"""

_UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
EnvironmentFile=-/etc/default/kubelet
Environment=PODS=
ExecStart=/usr/local/bin/kubelet --config=/var/lib/kubelet/config.yaml $KUBELET_EXTRA_ARGS
Restart=always
RestartSec=300ms
[Install]
WantedBy=multi-user.target
"""

_CONFIG = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
"""


def install(guest: Guest) -> None:
    """Writes its program, its unit and a configuration file without settings; does not start it."""
    files = ((PROGRAM, _PROGRAM), ("/etc/systemd/system/kubelet.service", _UNIT))
    for path, text in (*files, ("/var/lib/kubelet/config.yaml", _CONFIG)):
        guest.run(f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END")
    guest.run(f"chmod 755 {PROGRAM} && systemctl daemon-reload")


def set_pods(guest: Guest, pods: str) -> None:
    """Restarts it with static pods, as `forwarder=2`: a name, and how many devices."""
    directory = "/etc/systemd/system/kubelet.service.d"
    options = " ".join(f"--pod {pod}" for pod in pods.split())
    guest.run(
        f"mkdir -p {directory}\n"
        f"printf '[Service]\\nEnvironment=\"PODS={options}\"\\n' > {directory}/pods.conf\n"
        "systemctl daemon-reload && systemctl restart kubelet"
    )
    for pod in pods.split():
        name = pod.partition("=")[0]
        guest.wait_until(f'cat {STATUS}; grep \'"{name}": "Running"\' {STATUS}', timeout=120)
