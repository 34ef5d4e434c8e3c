/* SPDX-License-Identifier: Apache-2.0 */
/* facts.c - a machine described as JSON, for the API and the verbs. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/machine_int.h"
#include "virtio/vsock.h"

/* Firecracker's InstanceInfo knows three states. */
static const char *instance_state(enum life_state s)
{
	switch (s) {
	case LIFE_RUNNING: return "Running";
	case LIFE_PAUSED:
	case LIFE_SNAPSHOTTING: return "Paused";
	default: return "Not started";
	}
}

json_t *machine_instance_info(const struct machine *m)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "id", m->spec->id, "state",
		instance_state(m->life), "vmm_version", KELVIN_VERSION, "app_name", "kelvin");
}

json_t *machine_config(const struct machine *m)
{
	const struct machine_spec *s = m->spec;
	json_t *boot = json_pack("{s:s, s:s}", "kernel_image_path", s->kernel, "boot_args",
		s->cmdline);

	if (s->initrd[0])
		json_object_set_new(boot, "initrd_path", json_string(s->initrd));
	return json_pack("{s:o, s:{s:i, s:I, s:b, s:b, s:s}, s:[], s:[], s:{s:I, s:s}}",
		"boot-source", boot, "machine-config", "vcpu_count", (int)s->vcpus, "mem_size_mib",
		(json_int_t)(s->memory >> 20), "smt", 0, "track_dirty_pages", 0, "huge_pages",
		"None", "drives", "network-interfaces", "vsock", "guest_cid",
		(json_int_t)s->vsock_cid, "uds_path", s->vsock_path);
}

static json_t *timeline(const struct machine *m)
{
	json_t *j = json_object();

#define X(f)                                                                                       \
	if (m->time.f##_ns)                                                                        \
		json_object_set_new(j, #f, json_integer((json_int_t)(m->time.f##_ns / 1000)));
	PHASES(X)
#undef X
	return j;
}

static json_t *device_facts(const struct machine *m)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < m->device_count; i++) {
		struct virtio_dev *d = m->slot[i].dev;
		struct virtio_stats st;
		json_t *j;

		pthread_mutex_lock(&d->lock);
		st = d->stats;
		j = json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I}", "name", d->ops->name, "status",
			(int)d->status, "kicks", (json_int_t)st.kicks, "interrupts",
			(json_int_t)st.interrupts, "resets", (json_int_t)st.resets, "needs_reset",
			(json_int_t)st.needs_reset, "rejected_chains",
			(json_int_t)st.rejected_chains);
		pthread_mutex_unlock(&d->lock);
		if (d->ops->device_id == VIRTIO_ID_VSOCK) {
			struct vsock_stats vs;

			vsock_stats(d, &vs);
			json_object_set_new(j, "connections",
				json_integer((json_int_t)vsock_conn_count(d)));
			json_object_set_new(j, "tx_bytes", json_integer((json_int_t)vs.tx_bytes));
			json_object_set_new(j, "rx_bytes", json_integer((json_int_t)vs.rx_bytes));
		}
		json_array_append_new(list, j);
	}
	return list;
}

json_t *machine_facts(const struct machine *m)
{
	const struct machine_spec *s = m->spec;
	char uuid[33];
	json_t *j;

	for (unsigned i = 0; i < 16; i++) {
		static const char hex[] = "0123456789abcdef";

		uuid[2 * i] = hex[m->vm_uuid[i] >> 4];
		uuid[2 * i + 1] = hex[m->vm_uuid[i] & 15];
	}
	uuid[32] = 0;
	j = json_pack("{s:s, s:s, s:i, s:I, s:i, s:s, s:s, s:I, s:I, s:i, s:b, s:s}", "id", s->id,
		"state", life_name(m->life), "pid", (int)getpid(), "memory", (json_int_t)s->memory,
		"vcpus", (int)s->vcpus, "kernel", s->kernel, "cmdline", s->cmdline, "started_ns",
		(json_int_t)m->started_ns, "uptime_ms",
		(json_int_t)((clock_ns(CLOCK_REALTIME) - m->started_ns) / 1000000), "generation",
		(int)m->generation, "ready", (int)__atomic_load_n(&m->ready_rung, __ATOMIC_RELAXED),
		"vm_id", uuid);
	if (s->snapshot[0])
		json_object_set_new(j, "restored_from", json_string(s->snapshot));
	json_object_set_new(j, "cpu_ms",
		json_integer((json_int_t)(vm_cpu_time_ns(m->vm) / 1000000)));
	json_object_set_new(j, "vsock",
		json_pack("{s:I, s:s}", "cid", (json_int_t)s->vsock_cid, "path", s->vsock_path));
	json_object_set_new(j, "timeline_us", timeline(m));
	json_object_set_new(j, "unmapped_accesses",
		json_integer((json_int_t)__atomic_load_n(&m->unmapped, __ATOMIC_RELAXED)));
	json_object_set_new(j, "devices", device_facts(m));
	return j;
}
