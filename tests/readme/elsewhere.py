"""Commands on the pages that their own tests do not type, and what does."""

from __future__ import annotations

STAGES = "tests/vagrant/stages.sh"
OPERATING = "tests/vagrant/operating.sh"
INSTALL = "tests/install/test_install.py"
SET_UP = "tests/install/test_pages.py"
UNITS = "tests/unit/test_units.py"
CONTROL = "tests/e2e/test_control.py"
COMMANDS = "tests/unit/test_control_commands.py"

# A file, and the words in it that run the command.
ELSEWHERE = {
    # What every target of the Makefile does where a package is missing.
    "apt-get update": ("provisioning/packages.sh", "apt-get update"),
    "make test": (".ci/run", "make test"),
    "make check": (".ci/run", "make check"),
    "LAB_DATAPATH=ebpf make test": (".ci/run", "LAB_DATAPATH=ebpf make test"),
    "LAB_TOPOLOGY=routed make lab": ("tests/e2e/routed.py", '"routed"'),
    ".venv/bin/python -m tests.resources.idle_flows balancer": (
        "tests/resources/test_memory.py",
        '"-m", "tests.resources.idle_flows"',
    ),
    ".venv/bin/python -m tests.bench.choice": (
        "tests/bench/test_choice.py",
        '"-m", "tests.bench.choice"',
    ),
    ".venv/bin/python -m tests.bench.udp": ("tests/bench/test_udp.py", '"-m", "tests.bench.udp"'),
    "ip route add BRIDGE via ROUTER mtu 1400": (
        "tests/e2e/test_routed_hosts.py",
        '"ip", "route", "add", destination, "via", FRONT, "mtu"',
    ),
    "make install": (INSTALL, "made.install(prefix)"),
    **{
        command: ("tests/e2e/test_probe_services.py", words)
        for command, words in (
            (
                "balancer probe https://a.example/ --to 192.168.33.10",
                'f"https://{NAME}/1k", "--to", VIP',
            ),
            ("balancer probe tcp://192.168.33.10:2222", 'f"tcp://{VIP}:{ssh.PORT}"'),
            (
                "balancer probe udp://192.168.33.10:5300 --send hello",
                'f"udp://{VIP}:{UDP_PORT}", "--send", "hello"',
            ),
        )
    },
    "make uninstall": (INSTALL, "made.uninstall(prefix)"),
    "pip install .": ("tests/install/test_pip.py", 'pip(made, "install")'),
    **{
        command: (SET_UP, f'"{command}"')
        for command in (
            "cp /usr/local/share/doc/l3dsr/examples/balancer.toml /etc/l3dsr/",
            "cp /usr/local/share/doc/l3dsr/examples/sysctl-balancer.conf /etc/sysctl.d/l3dsr.conf",
            "sysctl -p /etc/sysctl.d/l3dsr.conf",
        )
    },
    **{
        command: (OPERATING, command)
        for command in (
            "journalctl -u balancer -g counters -n 1 -o cat",
            "journalctl -u balancer -n 20",
            "systemctl enable --now balancer",
            "systemctl kill -s INT balancer",
            "systemctl kill -s USR2 balancer",
            "systemctl reload balancer",
            "systemctl restart balancer",
            "systemctl stop balancer",
        )
    },
    "vagrant up": (STAGES, '"vagrant up" vagrant_shown up'),
    "vagrant ssh balancer -c 'sudo balancer'": (STAGES, "by_hand balancer balancer"),
    "vagrant ssh backend -c 'sudo packetbridge'": (STAGES, "by_hand backend packetbridge"),
    "SERVICES=1 vagrant up --provision": (STAGES, "export SERVICES=1"),
    "BACKENDS=2 SERVICES=1 vagrant up --provision": (
        STAGES,
        "BACKENDS=2 SERVICES=1 vagrant up --provision",
    ),
    "curl http://192.168.33.10/": (STAGES, 'fetch "http://$vip/"'),
    "balancer explain GET http://192.168.33.10/a": (
        CONTROL,
        '"explain", "GET", f"http://{VIP}/a"',
    ),
    "balancer explain tcp 192.168.33.10:22 --source 198.51.100.7": (
        "tests/e2e/test_uninspected.py",
        '"explain", "tcp", f"{VIP}:{ssh.PORT}", "--source", CLIENT',
    ),
    "balancer explain --service names --sni a.example --alpn h2": (
        "tests/e2e/test_tls.py",
        "explain --service names --sni a.example --alpn y",
    ),
    "balancer top": (CONTROL, '"top", "--frames", "1"'),
    "balancer shell": (CONTROL, 'line(lab, "balancer", "shell")'),
    "balancer trace 192.168.33.1 --seconds 5 --write client.pcap": (
        CONTROL,
        '"trace", CLIENT, "--seconds", "1.5", "--write"',
    ),
    "balancer flows --kill ID": (CONTROL, '"flows", "--kill", by_name'),
    "packetbridge drain ADDRESS:PORT": (CONTROL, '"backend1", "drain"'),
    "packetbridge ready ADDRESS:PORT": (CONTROL, '"backend1", "ready"'),
    "balancer add web/backend3 --bridge ADDRESS": (COMMANDS, 'do(commands, "add"'),
    "balancer remove web/backend3": (COMMANDS, 'do(commands, "remove"'),
    "balancer reload": (COMMANDS, '["reload"]'),
    "systemd-analyze security": (UNITS, '"security"'),
}

# Targets that take minutes or hours; `make test` runs the same tests in their short form.
ON_DEMAND = {
    "HYPOTHESIS_PROFILE=long make test",
    "make soak",
    "make bench",
    "make bench BENCH_ARGS=--quick",
    "make growth",
    "make install-check",
    "make kernel-check",
    "make vagrant-check",
}
