/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.h - variables that release what they hold when their scope ends. */
#ifndef KELVIN_BASE_CLEANUP_H
#define KELVIN_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* Closes *@fd when it is open, and marks it closed. errno is kept. */
void fd_close(int *fd);

/* Hands *@fd over to the caller; the variable no longer owns it. */
static inline int fd_steal(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

static inline void free_ptr(void *p)
{
	free(*(void **)p);
}

#define _cleanup_fd_   __attribute__((cleanup(fd_close)))
#define _cleanup_free_ __attribute__((cleanup(free_ptr)))

#endif
