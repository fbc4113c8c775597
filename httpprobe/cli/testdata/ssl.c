// SPDX-License-Identifier: Apache-2.0
// A TLS library without TLS: its functions have the names and the arguments of OpenSSL's.
#include <stdlib.h>
#include <unistd.h>

struct ssl {
	int fd;
};

struct ssl *SSL_new(void *context)
{
	(void)context;
	return calloc(1, sizeof(struct ssl));
}

int SSL_set_fd(struct ssl *s, int fd)
{
	s->fd = fd;
	return 1;
}

int SSL_read(struct ssl *s, void *to, int n)
{
	return read(s->fd, to, n);
}

int SSL_write(struct ssl *s, const void *from, int n)
{
	return write(s->fd, from, n);
}

void SSL_free(struct ssl *s)
{
	free(s);
}
