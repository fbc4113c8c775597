// SPDX-License-Identifier: Apache-2.0
//
// Loads each program of each object with libbpf, one at a time, and prints "OBJECT PROGRAM ERRNO" for each; then all of them at
// once, as "OBJECT * ERRNO"; or "OBJECT - ERRNO" when the object cannot be opened. Nothing is attached.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return getenv("VERBOSE") && level != LIBBPF_DEBUG ? vfprintf(stderr, format, args) : 0;
}

static int count(const char *path, char names[][128], int max)
{
	int n = 0;
	struct bpf_program *p;
	struct bpf_object *o = bpf_object__open_file(path, NULL);

	if (!o)
		return -errno;
	bpf_object__for_each_program(p, o)
		if (n < max)
			snprintf(names[n++], 128, "%s", bpf_program__name(p));
	bpf_object__close(o);
	return n;
}

static void load(const char *path, const char *name)
{
	struct bpf_program *p;
	struct bpf_map *m;
	struct bpf_object *o = bpf_object__open_file(path, NULL);

	if (!o)
		exit(1);
	if (strcmp(name, "*"))
		bpf_object__for_each_program(p, o)
			bpf_program__set_autoload(p, !strcmp(bpf_program__name(p), name));
	bpf_object__for_each_map(m, o) // nothing is to stay behind
		bpf_map__set_pin_path(m, NULL);
	printf("%s %s %d\n", path, name, -bpf_object__load(o));
	fflush(stdout);
	bpf_object__close(o);
}

int main(int argc, char **argv)
{
	static char names[1024][128];

	libbpf_set_print(quiet);
	for (int i = 1; i < argc; i++) {
		int n = count(argv[i], names, 1024);

		if (n < 0)
			printf("%s - %d\n", argv[i], -n);
		for (int k = 0; k < n; k++)
			load(argv[i], names[k]);
		if (n > 0)
			load(argv[i], "*");
	}
	return 0;
}
