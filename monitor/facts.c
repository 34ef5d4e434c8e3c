/* SPDX-License-Identifier: Apache-2.0 */
/* facts.c - a machine described as JSON, for the API and the verbs. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/machine_int.h"
#include "virtio/blk.h"
#include "virtio/net.h"
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
	json_t *drives = json_array(), *nets = json_array();

	if (s->initrd[0])
		json_object_set_new(boot, "initrd_path", json_string(s->initrd));
	for (unsigned i = 0; i < s->dev.disk_count; i++)
		json_array_append_new(drives, disk_to_drive(&s->dev.disk[i]));
	for (unsigned i = 0; i < s->dev.net_count; i++)
		json_array_append_new(nets, net_to_interface(&s->dev.net[i]));
	return json_pack("{s:o, s:{s:i, s:I, s:b, s:b, s:s}, s:o, s:o, s:{s:I, s:s}}",
		"boot-source", boot, "machine-config", "vcpu_count", (int)s->vcpus, "mem_size_mib",
		(json_int_t)(s->memory >> 20), "smt", 0, "track_dirty_pages", 0, "huge_pages",
		s->huge == HUGE_2M ? "2M" : "None", "drives", drives, "network-interfaces", nets,
		"vsock", "guest_cid", (json_int_t)s->vsock_cid, "uds_path", s->vsock_path);
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

/* Adds the counter @field of *@st to the object @j, under its own name. */
#define ADD(j, st, field) json_object_set_new(j, #field, json_integer((json_int_t)(st)->field))

static void blk_facts(json_t *j, struct virtio_dev *d)
{
	const struct disk *disk = blk_disk(d);
	struct blk_stats st;

	blk_stats(d, &st);
	json_object_set_new(j, "size", json_integer((json_int_t)disk_size(disk)));
	ADD(j, &st, reads);
	ADD(j, &st, writes);
	ADD(j, &st, flushes);
	ADD(j, &st, discards);
	ADD(j, &st, zeroes);
	ADD(j, &st, read_bytes);
	ADD(j, &st, write_bytes);
	ADD(j, &st, failed);
	ADD(j, &st, rejected);
	ADD(j, &st, throttled);
}

static void net_facts(json_t *j, struct virtio_dev *d)
{
	struct net_stats st;

	net_stats(d, &st);
	ADD(j, &st, rx_frames);
	ADD(j, &st, rx_bytes);
	ADD(j, &st, tx_frames);
	ADD(j, &st, tx_bytes);
	ADD(j, &st, rx_dropped);
	ADD(j, &st, tx_dropped);
	ADD(j, &st, tx_malformed);
	ADD(j, &st, tx_spoofed);
	ADD(j, &st, rx_starved);
	ADD(j, &st, rx_throttled);
	ADD(j, &st, tx_throttled);
}

static void vsock_facts(json_t *j, struct virtio_dev *d)
{
	struct vsock_stats st;

	vsock_stats(d, &st);
	json_object_set_new(j, "connections", json_integer((json_int_t)vsock_conn_count(d)));
	ADD(j, &st, conns_added);
	ADD(j, &st, conns_refused);
	ADD(j, &st, tx_packets);
	ADD(j, &st, rx_packets);
	ADD(j, &st, tx_bytes);
	ADD(j, &st, rx_bytes);
	ADD(j, &st, dropped);
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
		j = json_pack("{s:s, s:s, s:i}", "name", d->ops->name, "id", m->slot[i].id,
			"status", (int)d->status);
		pthread_mutex_unlock(&d->lock);
		ADD(j, &st, kicks);
		ADD(j, &st, interrupts);
		ADD(j, &st, resets);
		ADD(j, &st, needs_reset);
		ADD(j, &st, rejected_chains);
		ADD(j, &st, bad_accesses);
		switch (d->ops->device_id) {
		case VIRTIO_ID_BLOCK: blk_facts(j, d); break;
		case VIRTIO_ID_NET: net_facts(j, d); break;
		case VIRTIO_ID_VSOCK: vsock_facts(j, d); break;
		default: break;
		}
		json_array_append_new(list, j);
	}
	return list;
}

/* The vCPU threads, as `ps -T` shows them. */
static json_t *thread_facts(const struct machine *m)
{
	const struct cpu_pin *pin = &m->spec->pin;
	json_t *list = json_array();

	for (unsigned i = 0; i < m->spec->vcpus; i++) {
		char name[VCPU_NAME_MAX];
		json_t *j;

		vcpu_name(i, name);
		j = json_pack("{s:s, s:i, s:I}", "name", name, "tid", vcpu_tid(m->vm, i), "cpu_ms",
			(json_int_t)(vcpu_time_ns(m->vm, i) / 1000000));
		if (pin->count)
			json_object_set_new(j, "pinned_to",
				json_integer((json_int_t)pin->cpu[i % pin->count]));
		json_array_append_new(list, j);
	}
	return list;
}

static json_t *cpu_facts(const struct machine *m)
{
	char model[96];
	json_t *j;

	vm_cpu_model(m->vm, model, sizeof(model));
	j = json_pack("{s:s, s:s}", "template", m->spec->cpu, "model", model);
	if (m->spec->pin.has_loop)
		json_object_set_new(j, "loop_pinned_to",
			json_integer((json_int_t)m->spec->pin.loop));
	return j;
}

/* The loop: how it waits, and what the kernel let it have. */
static json_t *ring_facts(const struct machine *m)
{
	struct ring_stats st;
	char setup[128];
	json_t *j;

	ring_stats(m->ring, &st);
	ring_describe(m->ring, setup, sizeof(setup));
	j = json_pack("{s:s, s:b}", "setup", setup, "fixed_files", st.fixed_files);
	ADD(j, &st, turns);
	ADD(j, &st, sleeps);
	ADD(j, &st, polls);
	ADD(j, &st, poll_hits);
	json_object_set_new(j, "poll_us", json_integer((json_int_t)(st.poll_ns / 1000)));
	return j;
}

/* What is in force, and what is not for want of rights or of a newer kernel. */
static json_t *jail_facts(const struct machine *m)
{
	static const struct {
		unsigned bit;
		const char *text;
	} t[] = {
#define X(name, bit, text) {bit, text},
		JAIL_LAYERS(X)
#undef X
	};
	json_t *on = json_array(), *off = json_array();
	unsigned beside;

	if (!m->spec->jailed) {
		json_decref(on);
		json_decref(off);
		return json_string("none (--no-jail)");
	}
	/* Root's VMs need no user namespace, and those of others get no user id. */
	beside = m->jail.layers & JAIL_ID ? JAIL_USER : JAIL_ID;
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		if (t[i].bit != beside)
			json_array_append_new(m->jail.layers & t[i].bit ? on : off,
				json_string(t[i].text));
	return json_pack("{s:i, s:i, s:i, s:s, s:o, s:o}", "uid", (int)m->jail.uid, "gid",
		(int)m->jail.gid, "landlock", m->jail.landlock, "cgroup",
		m->jail.layers & JAIL_CGROUP ? m->spec->cgroup : "none", "in_force", on,
		"not_in_force", off);
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
	j = json_pack("{s:s, s:s, s:s, s:i, s:I, s:i, s:s, s:s, s:I, s:I, s:i, s:b, s:s}", "id",
		s->id, "state", life_name(m->life), "machine", kind_name(s->kind), "pid",
		(int)m->pid, "memory", (json_int_t)s->memory, "vcpus", (int)s->vcpus, "kernel",
		s->kernel, "cmdline", s->cmdline, "started_ns", (json_int_t)m->started_ns,
		"uptime_ms",
		(json_int_t)((clock_ns(CLOCK_REALTIME) - m->started_ns) / 1000000), "generation",
		(int)m->generation, "ready", (int)__atomic_load_n(&m->ready_rung, __ATOMIC_RELAXED),
		"vm_id", uuid);
	if (s->snapshot[0])
		json_object_set_new(j, "restored_from", json_string(s->snapshot));
	json_object_set_new(j, "jail", jail_facts(m));
	json_object_set_new(j, "processor", cpu_facts(m));
	json_object_set_new(j, "threads", thread_facts(m));
	json_object_set_new(j, "cpu_ms",
		json_integer((json_int_t)(vm_cpu_time_ns(m->vm) / 1000000)));
	json_object_set_new(j, "vsock",
		json_pack("{s:I, s:s}", "cid", (json_int_t)s->vsock_cid, "path", s->vsock_path));
	json_object_set_new(j, "timeline_us", timeline(m));
	json_object_set_new(j, "unmapped_accesses",
		json_integer((json_int_t)__atomic_load_n(&m->unmapped, __ATOMIC_RELAXED)));
	json_object_set_new(j, "seccomp", json_string(jail_seccomp_name(s->seccomp)));
	json_object_set_new(j, "devices", device_facts(m));
	json_object_set_new(j, "ring", ring_facts(m));
	return j;
}
