"""What the kubelet validates when it starts, about CPUs, NUMA nodes and memory.

`facts` reads what it validates; `reserved`, `cpu_policy`, `cpu_state`, `topology` and `memory` have
a rule for each refusal; `table` lists the rules; `advised` has values that the kubelet accepts.
"""
