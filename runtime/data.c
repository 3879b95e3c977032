/* Tensors in files, whatever their kind: see data.h. */
#include "runtime/data.h"

#include <string.h>

static enum linnet_code load_zip(struct bytes b, enum dtype want, const struct linnet_limits *l, struct arena *a,
                                 struct named_tensor **list, int *n, struct linnet_error *e)
{
	struct linnet_limits limits;
	struct zip_member *m;

	limits_fill(&limits, l);
	TRY(zip_list(b, a, &m, n, e));
	TRY_NEW(*list, a, *n);
	for (int i = 0; i < *n; i++) {
		size_t len = strlen(m[i].name);
		struct tensor *t;
		struct bytes data;

		if (len < 4 || strcmp(m[i].name + len - 4, ".npy"))
			return fail(e, LINNET_EFORMAT, "member \"%s\" is not an .npy", m[i].name);
		(*list)[i].name = arena_strn(a, m[i].name, len - 4);
		if (!(*list)[i].name)
			return fail_mem(e);
		TRY(zip_read(b, &m[i], limits.max_bytes, a, &data, e));
		TRY(err_node(e, npy_parse(data, want, &limits, a, &t, e), (*list)[i].name, NULL));
		(*list)[i].t = t;
	}
	return LINNET_OK;
}

static enum linnet_code load_one(const char *path, struct bytes b, enum dtype want, const struct linnet_limits *l, struct arena *a,
                                 struct named_tensor *item, struct linnet_error *e)
{
	struct tensor *t;

	item->name = "";
	if (b.n >= 6 && !memcmp(b.p, "\x93NUMPY", 6))
		TRY(npy_parse(b, want, l, a, &t, e));
	else if (!strcmp(path, "-"))
		return fail(e, LINNET_EFORMAT, "neither an .npy nor an .npz file");
	else
		TRY(proto_load_tensor(path, a, l, &t, &item->name, e));
	if (!item->name)
		item->name = "";
	item->t = t;
	return LINNET_OK;
}

enum linnet_code data_load(const char *path, enum dtype want, const struct linnet_limits *l, struct arena *a,
                           struct named_tensor **list, int *n, struct linnet_error *e)
{
	struct linnet_limits limits;
	struct bytes b;

	limits_fill(&limits, l);
	TRY(file_load(a, path, limits.max_bytes, &b, e));
	if (b.n >= 4 && (!memcmp(b.p, "PK\3\4", 4) || !memcmp(b.p, "PK\5\6", 4)))
		return err_file(e, load_zip(b, want, &limits, a, list, n, e), path);
	*n = 1;
	TRY_NEW(*list, a, 1);
	return err_file(e, load_one(path, b, want, &limits, a, *list, e), path);
}
