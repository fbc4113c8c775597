// SPDX-License-Identifier: Apache-2.0
// client LIBRARY PORT NAME N LOAD WAIT: loads the library after LOAD ms, waits for WAIT ms (-1: until standard input ends), and makes N requests,
// each on a connection of its own.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void *need(void *p)
{
	if (!p) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	usleep(atoi(argv[5]) * 1000);
	void *library = need(dlopen(argv[1], RTLD_NOW));
	void *(*new)(void *) = need(dlsym(library, "SSL_new"));
	int (*set_fd)(void *, int) = need(dlsym(library, "SSL_set_fd"));
	int (*read)(void *, void *, int) = need(dlsym(library, "SSL_read"));
	int (*write)(void *, const void *, int) = need(dlsym(library, "SSL_write"));
	void (*free)(void *) = need(dlsym(library, "SSL_free"));
	if (atoi(argv[6]) < 0)
		while (getchar() != EOF)
			;
	else
		usleep(atoi(argv[6]) * 1000);
	for (int i = 0; i < atoi(argv[4]); i++) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		char text[4096];
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0 || connect(fd, (void *)&to, sizeof(to))) {
			perror("connect");
			return 1;
		}
		void *ssl = new(NULL);
		set_fd(ssl, fd);
		int n = snprintf(text, sizeof(text), "GET /%s/%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", argv[3], i);
		if (write(ssl, text, n) != n)
			return 1;
		while ((n = read(ssl, text, sizeof(text))) > 0)
			;
		free(ssl);
		close(fd);
	}
	return 0;
}
