# bash completion for isolcpus-dp(8)

_isolcpus_dp() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local -A options=(
        [serve]="--test --config --sysfs --kubelet-dir --verbose --help"
        [pin]="--test --nri-socket --config --sysfs --verbose --help"
        [status]="--json --config --sysfs --kubelet-dir --help"
        [map]="--svg --watch --config --sysfs --kubelet-dir --help"
        [check]="--only --json --interval --nri-socket --config --sysfs --kubelet-dir --help"
        [plan]="--housekeeping --isolate --isolate-type --write --diff --json --os-release --machine --config --sysfs --help"
        [measure]="--cpus --duration --limit --json --svg --compare --watch-owned --config --sysfs --kubelet-dir --help"
        [simulate]="--machine --isolated --config --sysfs --help"
    )
    # bash splits --config=FILE into three words.
    if [[ $word = = ]]; then
        word=
    elif [[ $before = = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $before in
        --config | --nri-socket | --svg | --os-release | --compare)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --sysfs | --kubelet-dir | --write)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        --machine)
            mapfile -t COMPREPLY < <(compgen -W "1x4x2 2x8x2 2x32x2" -- "$word")
            return
            ;;
        --only)
            mapfile -t COMPREPLY < <(compgen -W "kernel-arguments nohz-full rcu-nocbs smt-siblings irq-affinity irq-counts irqbalance workqueues kernel-threads foreign-processes watchdog timers
                cpu-frequency idle-states huge-pages numa-balancing reserved-cpus cpu-manager topology-manager kubelet-start static-pods unit-order cpu-quota nri pin-daemon versions" -- "$word")
            return
            ;;
        --isolate-type)
            mapfile -t COMPREPLY < <(compgen -W "performance efficient" -- "$word")
            return
            ;;
        --isolated | --interval | --isolate | --housekeeping | --cpus | --duration | --limit)
            return
            ;;
    esac
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "${!options[*]} --help --version" -- "$word")
    elif [[ -v options[${COMP_WORDS[1]}] ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${options[${COMP_WORDS[1]}]}" -- "$word")
    fi
} && complete -F _isolcpus_dp isolcpus-dp
