/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.c - see cleanup.h */
#include "monitor/base/cleanup.h"

#include <errno.h>

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}
