# SPDX-License-Identifier: Apache-2.0
# What the scripts of bench/run linux begin with, inside the lab. Lines that begin with "sample",
# "own" and "trouble" are for the host (lib/linux.py).
set +ex
mkdir -p /bench
cd /bench
export KELVIN_RUN_DIR=/run/kelvin XDG_CACHE_HOME=/bench
T=/sys/kernel/tracing
test -p input || mkfifo input
exec 3<>input # guests' input

until_has() { # FILE TEXT
	n=0
	until grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		test $n -lt 500 || { echo "trouble $1: no $2"; cat "$1" err; break; }
		usleep 20000
	done
}

# Starts a command and prints its time until a marker (spawn.c). A VM it left is called x.
take() { # NAME MARKER -- COMMAND...
	name=$1
	shift
	printf '................' >&3
	if out=$(spawn --stdin --timeout 50 "$@" <&3 3<&- 2>err); then
		echo "sample $name $out"
	else
		echo "trouble $name: $(tail -2 err | tr '\n' ' ')"
	fi
	test ! -e /run/kelvin/x || kelvin kill x >/dev/null 2>&1
	rm -rf /run/kelvin/*
}

# Boots as `take` does, but traced, which costs time, and prints what is kelvin's own of it.
own() { # COMMAND...
	mount -t tracefs tracefs $T 2>/dev/null
	echo 16384 >$T/buffer_size_kb
	echo mono >$T/trace_clock
	echo 1 >$T/events/kvm/kvm_entry/enable
	echo 1 >$T/events/kvm/kvm_userspace_exit/enable
	echo >$T/trace
	echo 1 >$T/tracing_on
	"$@" >own.out 2>err </dev/null &
	until_has own.out R
	for t in /proc/$!/task/*; do
		echo "task ${t##*/} $(cut -d' ' -f1 "$t/schedstat")"
	done >own.tasks
	echo 0 >$T/tracing_on
	kill -9 $!
	wait
	awk -f /lab/own.awk own.tasks $T/trace
	echo 0 >$T/events/enable
	rm -rf /run/kelvin/*
}
