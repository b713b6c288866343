# Everything runs as root (network namespaces, raw sockets, firewall rules) on Debian 12 and needs
# nothing beforehand but make. Paths are relative: the checkout's own path may contain spaces.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help packages bpf venv install uninstall lab lab-down lab-status demo demo-udp test check load-test soak bench growth install-check kernel-check vagrant-check

# Debian's own Python where there is one: a later one from elsewhere may lack wheels.
PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

packages: ## install the Debian packages that are missing
	@provisioning/packages.sh

venv: bpf ## make .venv with both programs and the test tools in it
	@provisioning/venv.sh "$(PYTHON)"

FASTPATH := balancer/fastpath/steer.bpf.o packetbridge/fastpath/splice.bpf.o
bpf: $(FASTPATH) ## compile the eBPF programs

%.bpf.o: %.bpf.c $(wildcard common/fastpath/*.h balancer/fastpath/*.h packetbridge/fastpath/*.h) provisioning/bpf.sh | packages
	@echo "compiling $< ..."
	@provisioning/bpf.sh $< $@

PREFIX ?= /usr/local
install: ## install both programs, units, man pages (PREFIX=/usr/local DESTDIR=)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' PYTHON='$(PYTHON)' provisioning/install.sh install

uninstall: ## remove what install has installed (PREFIX and DESTDIR as there)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' provisioning/install.sh uninstall

lab: venv ## start the lab (LAB_TOPOLOGY=switched|routed, LAB_DATAPATH=auto|ebpf|nfqueue)
	@provisioning/lab.sh up

lab-down: ## stop the lab and remove every trace of it (logs stay in .lab/log)
	@provisioning/lab.sh down

lab-status: ## say what of the lab is running
	@provisioning/lab.sh status || (($$? == 1 && EUID == 0)) # 1: something is stopped

demo: venv ## start the lab, show what it does, stop it
	@provisioning/demo.sh

demo-udp: venv ## the same for a service over UDP, with many clients
	@provisioning/demo/udp.sh

load-test: venv ## measure requests per second through the balancer (LOAD_SECONDS=5 each)
	@provisioning/load-test.sh

bench: venv ## measure beside HAProxy, nginx, kernel DNAT and no balancer (BENCH_ARGS=--quick)
	.venv/bin/python -m tests.bench $(BENCH_ARGS)

growth: venv ## what a packet and a connection cost with 1,000, 100,000 and 1,000,000 connections
	.venv/bin/python -m tests.bench.growth

install-check: venv ## install and uninstall for real, with what the checkout holds: a minute
	.venv/bin/pytest tests/install $(PYTEST_ARGS)

kernel-check: venv ## test the kernel's path on Debian 12's own Linux 6.1, in an emulator: ten minutes
	tests/kernel/debian12.sh

vagrant-check: ## try the Vagrant boxes, as namespaces instead of virtual machines: ten minutes
	@tests/vagrant/check.sh

check: venv ## lint, formatting, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: venv ## run every test
	.venv/bin/pytest $(PYTEST_ARGS)

soak: venv ## run the long forms of the tests (loss, restarts, floods, a million packets): an hour or two
	.venv/bin/pytest --soak --timeout 1200 --session-timeout 10800 $(PYTEST_ARGS)
