# SPDX-License-Identifier: Apache-2.0
# What of a traced boot is kelvin's own, in ns: of threads that entered a guest, the time from each
# exit to user space to the next entry; of the others, all their time on a processor.
# Reads "task TID NS" lines, then a trace with the events kvm_entry and kvm_userspace_exit.
$1 == "task" { task[$2] = $3; next }
match($0, /-[0-9]+ +\[/) {
	tid = substr($0, RSTART + 1) + 0
	if (!match($0, /[0-9]+\.[0-9]+: kvm_/))
		next
	now = substr($0, RSTART) + 0
	if ($0 ~ /kvm_userspace_exit:/) {
		left[tid] = now
	} else {
		vcpu[tid] = 1
		if (tid in left) {
			exits++
			handled += now - left[tid]
			delete left[tid]
		}
	}
}
END {
	for (tid in task)
		if (!(tid in vcpu))
			threads += task[tid]
	printf "own %.0f threads %.0f exits %d\n", threads + handled * 1e9, threads, exits
}
