/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what the fuzz targets share: decisions made from bytes, and a driver that mostly
 * behaves.
 *
 * An input is a list of records of FZ_REC bytes, one a step of the target: what to do, and how.
 * The decisions of a step come from its record, and once that is used up from a generator seeded
 * with it; so a record says everything about its step whatever stands around it, and records can
 * be cut, copied and moved (fuzz_mutate.c does that).
 *
 * Valid by default: the bytes that say how to break a rule do so for a few of their 256 values
 * only, 0 not among them. A target knows whether the driver kept the rules so far, and holds the
 * device to more as long as it did.
 */
#ifndef KELVIN_TESTS_FUZZ_H
#define KELVIN_TESTS_FUZZ_H

#include "monitor/base/bytes.h"
#include "tests/lib/vq_builder.h"

#define FZ_REC       16u
#define FZ_STEPS_MAX 128u /* what is behind them is not looked at */

/* Each target is one function like this, and fz_target_init() for what is done once. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct fz {
	const u8 *next; /* the record of the step after this one */
	size_t left;
	unsigned steps;
	u8 rec[FZ_REC];
	unsigned at;
	u64 seed;
};

void fz_begin(struct fz *f, const u8 *data, size_t len);
/* Goes to the next step; false when there is none. */
bool fz_step(struct fz *f);
u8 fz_u8(struct fz *f);
u16 fz_u16(struct fz *f);
u32 fz_u32(struct fz *f);
u64 fz_u64(struct fz *f);
/* From 0 to @n - 1, by one byte if @n <= 256. */
u32 fz_below(struct fz *f, u32 n);
/* Mostly 0; else which of @n rules to break, from 1. */
unsigned fz_break(struct fz *f, unsigned n);
/* With FZ_TRACE in the environment: what the input does, on standard error. */
void fz_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A number worth trying where @good is right. */
u64 fz_odd(struct fz *f, u64 good);
/* Changes bytes that are to be parsed, at least one, in one of 8 ways; never leaves none. */
void fz_change(struct fz *f, u8 how, struct enc *e);

/*
 * Guest memory of every target: rings and indirect tables of up to FZ_QUEUES queues of at most
 * FZ_QSIZE entries, then room for a target's own things, and a second region at 4 GiB.
 */
#define FZ_QUEUES     5u
#define FZ_QSIZE      32u
#define FZ_TABLE_MAX  16u /* entries of an indirect table */
#define FZ_RING_GPA   0x1000ull
#define FZ_TABLE_GPA  0x8000ull
#define FZ_DATA_GPA   0x12000ull
#define FZ_HIGH_LEN   0x2000ull

/* What a step did to the ring. */
enum fz_fault {
	FZ_FINE,
	FZ_ODD,    /* the chain is unusual or names no RAM, but the ring is sound */
	FZ_BROKEN, /* the ring is not: nothing is promised until a reset */
	FZ_FULL,   /* nothing: there are not enough descriptors */
};

struct fz_queue {
	struct vqb b;
	unsigned index;
	bool indirect, event_idx; /* negotiated */
	bool broken;
	bool out[FZ_QSIZE];       /* heads offered and not yet used */
	bool odd[FZ_QSIZE];       /* their chains were FZ_ODD */
	unsigned out_count;
	u16 kicked;               /* avail.idx when the driver last thought about a kick */
};

void fz_ram_init(struct guest_ram *ram, u64 low_len);
/* Zeroes all of it. */
void fz_ram_clear(struct guest_ram *ram);

/* An empty ring of @size entries at its place. */
void fz_queue_init(struct fz_queue *q, struct guest_ram *ram, unsigned index, u16 size);
/*
 * Offers a chain of these buffers, direct or by an indirect table, some cut in two, and maybe with
 * one of the faults of the catalogue (Q01-Q32). *@ret_head is set unless FZ_FULL. At most 8.
 */
enum fz_fault fz_offer(struct fz *f, struct fz_queue *q, const struct vqb_buf *buf, unsigned n,
	u16 *ret_head);
/* The head that fz_offer() will take next, for buffers that have their place by head. */
u16 fz_next_head(const struct fz_queue *q);
/*
 * Takes a used element back: it must be of a head that is out. False when there is none; always
 * on a ring that the driver broke.
 */
bool fz_used(struct fz_queue *q, u16 *ret_head, u32 *ret_len);
/* Kicks if the device asked for it since the last look, as a driver does, or ring is broken. */
void fz_kick(struct virtio_dev *d, struct fz_queue *q);
/* Breaks the ring by a word of any value somewhere in guest memory. */
void fz_scribble(struct fz *f, struct fz_queue *q, unsigned queues);

/*
 * Reset, negotiation of @features (which say VERSION_1 if it is to be) and of what the queues say,
 * @n queues that are not NULL, DRIVER_OK. All of that must work.
 */
void fz_bring_up(struct virtio_dev *d, struct fz_queue *q[], unsigned n, u64 features);

/* One access to the register window, of any kind. */
void fz_mmio_access(struct fz *f, struct virtio_dev *d);
/* What holds for a device at any time. */
void fz_check_dev(const struct virtio_dev *d);

#endif
