/*
 * ai.onnx.ml's ensembles of decision trees. Reference kernels, then rows.
 *
 * All three operators become one form (struct ensemble) before they are evaluated; what would make evaluation go astray, an index
 * out of range or a cycle, is refused there, lists of differing lengths by the shape functions. A sample that is NaN at a node's
 * feature goes where nodes_missing_value_tracks_true says, whatever the comparison: so says the text; onnxruntime lets NaN always
 * take the true branch of BRANCH_NEQ.
 *
 * Letters: N samples, F features, E targets or classes.
 */
#include "ops/ml.h"

#include <stdlib.h>
#include <string.h>

/* ---- The form ---- */

/* Numbered as TreeEnsemble does; LEAF is no comparison. */
enum mode { LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF };
enum aggregate { AVERAGE, SUM, MIN, MAX };

struct tree_node {
	enum mode mode;
	bool missing;     /* where NaN goes */
	int64_t feature;
	double split;
	int64_t yes, no;   /* nodes */
	int64_t first, n;  /* LEAF: of its votes; MEMBER: of its members */
};

struct vote {
	int64_t target;
	double weight;
};

struct ensemble {
	int64_t nnode, ntree;
	struct tree_node *node;
	int64_t *root; /* ntree of them */
	const struct vote *vote;
	const double *member;
};

static double real_at(const struct attr *a, int64_t i)
{
	return a->kind == ATTR_TENSOR ? tensor_get(a->t, i) : (double)a->floats[i];
}

/* Nodes nothing (more) leads to are taken away until none is left, or there is a cycle. */
static enum linnet_code refuse_cycles(const struct ensemble *t, struct arena *a, struct linnet_error *e)
{
	int64_t *in, *ready, nready = 0, taken = 0;

	TRY_NEW(in, a, t->nnode);
	TRY_NEW(ready, a, t->nnode);
	for (int64_t i = 0; i < t->nnode; i++)
		if (t->node[i].mode != LEAF) {
			in[t->node[i].yes]++;
			in[t->node[i].no]++;
		}
	for (int64_t i = 0; i < t->nnode; i++)
		if (!in[i])
			ready[nready++] = i;
	for (; taken < nready; taken++) {
		const struct tree_node *x = &t->node[ready[taken]];

		if (x->mode == LEAF)
			continue;
		if (!--in[x->yes])
			ready[nready++] = x->yes;
		if (!--in[x->no])
			ready[nready++] = x->no;
	}
	for (int64_t i = 0; i < t->nnode && taken < t->nnode; i++)
		if (in[i])
			return fail(e, LINNET_EATTR, "the branches of node %lld lead back to it", (long long)i);
	return LINNET_OK;
}

static bool is_member(const struct ensemble *t, const struct tree_node *x, double v)
{
	for (int64_t i = 0; i < x->n; i++)
		if (t->member[x->first + i] == v)
			return true;
	return false;
}

static bool holds(const struct ensemble *t, const struct tree_node *x, double v)
{
	if (isnan(v))
		return x->missing;
	switch (x->mode) {
	case LEQ: return v <= x->split;
	case LT: return v < x->split;
	case GTE: return v >= x->split;
	case GT: return v > x->split;
	case EQ: return v == x->split;
	case NEQ: return v != x->split;
	default: return is_member(t, x, v);
	}
}

static const struct tree_node *leaf_of(const struct ensemble *t, int64_t root, const struct tensor *x, int64_t sample)
{
	const struct tree_node *at = &t->node[root];

	while (at->mode != LEAF)
		at = &t->node[holds(t, at, tensor_get(x, sample * feature_count(x) + at->feature)) ? at->yes : at->no];
	return at;
}

/* s[k] = the weights of target k over the leaves of all trees, summed up, averaged over trees, or the least or largest; 0
 * where there are none, as in onnxruntime. seen: [E] */
static void aggregate(const struct ensemble *t, enum aggregate how, const struct tensor *x, int64_t sample, int64_t n, bool *seen,
                      double *s)
{
	for (int64_t k = 0; k < n; k++) {
		seen[k] = false;
		s[k] = 0;
	}
	for (int64_t i = 0; i < t->ntree; i++) {
		const struct tree_node *leaf = leaf_of(t, t->root[i], x, sample);

		for (int64_t v = leaf->first; v < leaf->first + leaf->n; v++) {
			int64_t k = t->vote[v].target;
			double w = t->vote[v].weight;

			if (how == SUM || how == AVERAGE)
				s[k] += w;
			else if (!seen[k] || (how == MIN ? w < s[k] : w > s[k]))
				s[k] = w;
			seen[k] = true;
		}
	}
	for (int64_t k = 0; k < n && how == AVERAGE && t->ntree; k++)
		s[k] /= (double)t->ntree;
}

/* Transformed scores of each sample; base (may be left out) is added before. */
static enum linnet_code regress_with(struct kernel_call *c, const struct ensemble *t, enum aggregate how, const struct attr *base,
                                     enum transform transform)
{
	struct tensor *y = c->out[0];
	struct linnet_error *e = c->e;
	int64_t n = y->d[1];
	bool *seen;
	double *s;

	TRY_NEW(seen, c->scratch, n);
	TRY_NEW(s, c->scratch, n);
	for (int64_t i = 0; i < y->d[0]; i++) {
		aggregate(t, how, c->in[0], i, n, seen, s);
		for (int64_t k = 0; k < n && list_length(base); k++)
			s[k] += real_at(base, k);
		scores_put(y, i * n, s, n, transform);
	}
	return LINNET_OK;
}

/* ---- Attributes ---- */

struct list {
	const char *name;
	bool optional;
};

/* Lists that have one element for each of something have as many as the first. */
static enum linnet_code expect_same(const struct shape_call *c, const struct list *l, int n)
{
	int64_t first = list_length(attr_get(c->op, c->attr, l[0].name));

	for (int i = 1; i < n; i++) {
		int64_t k = list_length(attr_get(c->op, c->attr, l[i].name));

		if (k != first && !(l[i].optional && !k))
			return fail(c->e, LINNET_EATTR, "attributes \"%s\" and \"%s\" have %lld and %lld elements; expected as many", l[0].name,
			            l[i].name, (long long)first, (long long)k);
	}
	return LINNET_OK;
}

/* Where features are not known any number will do, but no negative one. */
static int64_t feature_end(dim f) { return dim_is_int(f) ? f : INT64_MAX; }

static enum linnet_code index_check(const struct shape_call *c, const char *what, int64_t i, int64_t end)
{
	if (i >= 0 && i < end)
		return LINNET_OK;
	if (end == INT64_MAX)
		return fail(c->e, LINNET_EATTR, "%s %lld is named, a negative number", what, (long long)i);
	return fail(c->e, LINNET_EATTR, "%s %lld is named; there are %lld", what, (long long)i, (long long)end);
}

static enum linnet_code expect_range(const struct shape_call *c, const char *name, int64_t end, const char *what)
{
	const struct attr *a = attr_get(c->op, c->attr, name);

	for (int64_t i = 0; i < list_length(a); i++)
		TRY(index_check(c, what, a->ints[i], end));
	return LINNET_OK;
}

static enum linnet_code expect_reals(const struct shape_call *c, const char *name)
{
	const struct attr *a = attr_get(c->op, c->attr, name);

	if (attr_given(a) && a->kind == ATTR_TENSOR && !dtype_in(a->t->dt, FLOATS))
		return fail(c->e, LINNET_ETYPE, "attribute \"%s\" has element type %s; expected floats", name, dtype_name(a->t->dt));
	return LINNET_OK;
}

/* The number of targets: n_targets, else one more than the largest named. */
static int64_t target_count(const struct op *op, const struct attr *attr, const char *ids)
{
	const struct attr *n = attr_get(op, attr, "n_targets"), *a = attr_get(op, attr, ids);
	int64_t most = -1;

	for (int64_t i = 0; i < list_length(a); i++)
		most = larger_int(most, a->ints[i]);
	return attr_given(n) ? n->i : most < INT32_MAX ? most + 1 : INT32_MAX;
}

/* ---- TreeEnsemble ---- */

static enum linnet_code shape_ensemble(struct shape_call *c)
{
	static const struct list nodes[] = {
		{ "nodes_featureids", false }, { "nodes_splits", false }, { "nodes_modes", false }, { "nodes_truenodeids", false },
		{ "nodes_falsenodeids", false }, { "nodes_trueleafs", false }, { "nodes_falseleafs", false }, { "nodes_hitrates", true },
		{ "nodes_missing_value_tracks_true", true },
	};
	static const struct list leaves[] = { { "leaf_targetids", false }, { "leaf_weights", false } };
	static const char *const reals[] = { "nodes_splits", "leaf_weights", "membership_values" };
	int64_t n = target_count(c->op, c->attr, "leaf_targetids");
	const struct tensor *modes = attr_get(c->op, c->attr, "nodes_modes")->t;
	dim samples, f;

	TRY(samples_shape(c, &samples, &f));
	TRY(expect_same(c, nodes, (int)(sizeof nodes / sizeof *nodes)));
	TRY(expect_same(c, leaves, (int)(sizeof leaves / sizeof *leaves)));
	for (int i = 0; i < (int)(sizeof reals / sizeof *reals); i++)
		TRY(expect_reals(c, reals[i]));
	if (modes->dt != DT_UINT8)
		return fail(c->e, LINNET_ETYPE, "attribute \"nodes_modes\" has element type %s; expected uint8", dtype_name(modes->dt));
	for (int64_t i = 0; i < modes->n; i++)
		if (tensor_get_int(modes, i) > MEMBER)
			return fail(c->e, LINNET_EATTR, "node %lld has mode %lld; expected 0 to %d", (long long)i,
			            (long long)tensor_get_int(modes, i), MEMBER);
	TRY(expect_range(c, "leaf_targetids", n, "target"));
	TRY(expect_range(c, "nodes_featureids", feature_end(f), "feature"));
	TRY(expect_range(c, "tree_roots", modes->n, "node"));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { samples, n } };
	return LINNET_OK;
}

/* A node's branch: to a node, or to leaf i, which is node nnode + i. */
static enum linnet_code branch(const struct kernel_call *c, int64_t i, const char *to, const char *leaf, int64_t nnode,
                               int64_t nleaf, int64_t *out)
{
	bool is_leaf = attr_of(c, leaf)->ints[i] != 0;
	int64_t end = is_leaf ? nleaf : nnode;
	int64_t k = attr_of(c, to)->ints[i];

	if (k < 0 || k >= end)
		return fail(c->e, LINNET_EATTR, "node %lld leads to %s %lld; there are %lld", (long long)i, is_leaf ? "leaf" : "node",
		            (long long)k, (long long)end);
	*out = is_leaf ? nnode + k : k;
	return LINNET_OK;
}

/* Sets of members, each ended by a NaN (the last one's may be missing), go to the nodes of mode MEMBER in order. */
static enum linnet_code read_members(struct kernel_call *c, struct ensemble *t, int64_t nnode)
{
	const struct attr *a = attr_of(c, "membership_values");
	int64_t n = list_length(a), at = 0;
	struct linnet_error *e = c->e;
	double *member;

	TRY_NEW(member, c->scratch, n);
	for (int64_t i = 0; i < n; i++)
		member[i] = real_at(a, i);
	t->member = member;
	for (int64_t i = 0; i < nnode; i++) {
		if (t->node[i].mode != MEMBER)
			continue;
		if (at >= n)
			return fail(e, LINNET_EATTR, "attribute \"membership_values\" has no set for node %lld", (long long)i);
		t->node[i].first = at;
		while (at < n && !isnan(member[at]))
			at++;
		t->node[i].n = at++ - t->node[i].first;
	}
	if (at < n)
		return fail(e, LINNET_EATTR, "attribute \"membership_values\" has more sets than there are nodes of mode BRANCH_MEMBER");
	return LINNET_OK;
}

static enum linnet_code evaluate_ensemble(struct kernel_call *c)
{
	const struct attr *missing = attr_of(c, "nodes_missing_value_tracks_true"), *roots = attr_of(c, "tree_roots");
	int64_t nnode = list_length(attr_of(c, "nodes_modes")), nleaf = list_length(attr_of(c, "leaf_weights"));
	struct ensemble t = { .nnode = nnode + nleaf, .ntree = list_length(roots) };
	struct linnet_error *e = c->e;
	struct vote *vote;

	TRY_NEW(t.node, c->scratch, t.nnode);
	TRY_NEW(t.root, c->scratch, t.ntree);
	TRY_NEW(vote, c->scratch, nleaf);
	t.vote = vote;
	for (int64_t i = 0; i < nnode; i++) {
		struct tree_node *x = &t.node[i];

		x->mode = (enum mode)tensor_get_int(attr_of(c, "nodes_modes")->t, i);
		x->missing = list_length(missing) && missing->ints[i];
		x->feature = attr_of(c, "nodes_featureids")->ints[i];
		x->split = real_at(attr_of(c, "nodes_splits"), i);
		TRY(branch(c, i, "nodes_truenodeids", "nodes_trueleafs", nnode, nleaf, &x->yes));
		TRY(branch(c, i, "nodes_falsenodeids", "nodes_falseleafs", nnode, nleaf, &x->no));
	}
	for (int64_t i = 0; i < nleaf; i++) {
		t.node[nnode + i] = (struct tree_node){ .mode = LEAF, .first = i, .n = 1 };
		vote[i] = (struct vote){ attr_of(c, "leaf_targetids")->ints[i], real_at(attr_of(c, "leaf_weights"), i) };
	}
	for (int64_t i = 0; i < t.ntree; i++)
		t.root[i] = roots->ints[i];
	TRY(read_members(c, &t, nnode));
	TRY(refuse_cycles(&t, c->scratch, e));
	return regress_with(c, &t, (enum aggregate)attr_of(c, "aggregate_function")->i, attr_of(c, "base_values"),
	                    (enum transform)attr_of(c, "post_transform")->i);
}

/* ---- TreeEnsembleClassifier, TreeEnsembleRegressor ---- */

/* The two name their lists of votes differently. */
struct names {
	const char *treeids, *nodeids, *ids, *weights, *weights_tensor;
};

static const struct names class_names = { "class_treeids", "class_nodeids", "class_ids", "class_weights",
	                                   "class_weights_as_tensor" };
static const struct names target_names = { "target_treeids", "target_nodeids", "target_ids", "target_weights",
	                                    "target_weights_as_tensor" };

/* A list of floats, or the tensor given in its place. */
static const struct attr *reals(const struct op *op, const struct attr *attr, const char *name, const char *tensor)
{
	const struct attr *a = attr_get(op, attr, tensor);

	return list_length(a) ? a : attr_get(op, attr, name);
}

static const char *const modes[] = { [LEQ] = "BRANCH_LEQ", [LT] = "BRANCH_LT", [GTE] = "BRANCH_GTE", [GT] = "BRANCH_GT",
	                             [EQ] = "BRANCH_EQ", [NEQ] = "BRANCH_NEQ", [MEMBER] = NULL, [LEAF] = "LEAF" };

/* -1 when it is none. */
static int mode_of(struct text s)
{
	for (int i = LEQ; i <= LEAF; i++)
		if (modes[i] && strlen(modes[i]) == s.n && !memcmp(modes[i], s.p, s.n))
			return i;
	return -1;
}

/* What the two have in common; end: of targets or classes. Features of leaves mean nothing. */
static enum linnet_code check_lists(const struct shape_call *c, const struct names *v, int64_t end, dim features)
{
	static const struct list nodes[] = {
		{ "nodes_treeids", false }, { "nodes_nodeids", false }, { "nodes_featureids", false }, { "nodes_modes", false },
		{ "nodes_truenodeids", false }, { "nodes_falsenodeids", false }, { "nodes_hitrates", true },
		{ "nodes_hitrates_as_tensor", true }, { "nodes_missing_value_tracks_true", true },
	};
	const struct list votes[] = { { v->treeids, false }, { v->nodeids, false }, { v->ids, false } };
	const struct attr *word = attr_get(c->op, c->attr, "nodes_modes"), *feature = attr_get(c->op, c->attr, "nodes_featureids");
	const struct attr *split = reals(c->op, c->attr, "nodes_values", "nodes_values_as_tensor");
	const struct attr *weight = reals(c->op, c->attr, v->weights, v->weights_tensor);

	TRY(expect_same(c, nodes, (int)(sizeof nodes / sizeof *nodes)));
	TRY(expect_same(c, votes, (int)(sizeof votes / sizeof *votes)));
	if (list_length(split) != list_length(word))
		return fail(c->e, LINNET_EATTR, "%lld values of nodes are given for %lld nodes", (long long)list_length(split),
		            (long long)list_length(word));
	if (list_length(weight) != list_length(attr_get(c->op, c->attr, v->ids)))
		return fail(c->e, LINNET_EATTR, "%lld weights are given for %lld votes", (long long)list_length(weight),
		            (long long)list_length(attr_get(c->op, c->attr, v->ids)));
	TRY(expect_reals(c, "nodes_values_as_tensor"));
	TRY(expect_reals(c, v->weights_tensor));
	TRY(expect_reals(c, "base_values_as_tensor"));
	TRY(expect_range(c, v->ids, end, v == &class_names ? "class" : "target"));
	for (int64_t i = 0; i < list_length(word); i++) {
		int mode = mode_of(word->strings[i]);

		if (mode < 0)
			return fail(c->e, LINNET_EATTR, "node %lld has mode \"%.*s\"; expected BRANCH_LEQ, _LT, _GTE, _GT, _EQ, _NEQ or LEAF",
			            (long long)i, (int)word->strings[i].n, word->strings[i].p);
		if (mode != LEAF)
			TRY(index_check(c, "feature", feature->ints[i], feature_end(features)));
	}
	return LINNET_OK;
}

/* Nodes by tree and id. */
struct key {
	int64_t tree, id;
	int64_t node;
};

static int compare_keys(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	return x->tree != y->tree ? (x->tree > y->tree) - (x->tree < y->tree) : (x->id > y->id) - (x->id < y->id);
}

static enum linnet_code find_node(const struct key *key, int64_t n, int64_t tree, int64_t id, const char *what, int64_t i,
                                  int64_t *out, struct linnet_error *e)
{
	const struct key wanted = { tree, id, 0 };
	const struct key *found = n ? bsearch(&wanted, key, (size_t)n, sizeof *key, compare_keys) : NULL;

	if (!found)
		return fail(e, LINNET_EATTR, "%s %lld leads to node %lld of tree %lld, which there is not", what, (long long)i,
		            (long long)id, (long long)tree);
	*out = found->node;
	return LINNET_OK;
}

/* Votes in the order of the nodes they are at, those of one node in the order of the lists. Votes at branches never count. */
static enum linnet_code read_votes(struct kernel_call *c, const struct names *v, const struct key *key, struct ensemble *t)
{
	const struct attr *tree = attr_of(c, v->treeids), *id = attr_of(c, v->nodeids);
	const struct attr *weight = reals(c->op, c->attr, v->weights, v->weights_tensor);
	int64_t n = list_length(tree), at = 0, *node;
	struct linnet_error *e = c->e;
	struct vote *vote;

	TRY_NEW(node, c->scratch, n);
	TRY_NEW(vote, c->scratch, n);
	for (int64_t i = 0; i < n; i++) {
		TRY(find_node(key, t->nnode, tree->ints[i], id->ints[i], "vote", i, &node[i], e));
		t->node[node[i]].n++;
	}
	for (int64_t i = 0; i < t->nnode; i++) {
		t->node[i].first = at;
		at += t->node[i].n;
		t->node[i].n = 0;
	}
	for (int64_t i = 0; i < n; i++) {
		struct tree_node *x = &t->node[node[i]];

		vote[x->first + x->n++] = (struct vote){ attr_of(c, v->ids)->ints[i], real_at(weight, i) };
	}
	t->vote = vote;
	return LINNET_OK;
}

/* A tree begins at the first node that is listed for it. */
static enum linnet_code read_ensemble(struct kernel_call *c, const struct names *v, struct ensemble *t)
{
	const struct attr *tree = attr_of(c, "nodes_treeids"), *id = attr_of(c, "nodes_nodeids");
	const struct attr *missing = attr_of(c, "nodes_missing_value_tracks_true");
	const struct attr *split = reals(c->op, c->attr, "nodes_values", "nodes_values_as_tensor");
	int64_t n = list_length(tree);
	struct linnet_error *e = c->e;
	struct key *key;

	*t = (struct ensemble){ .nnode = n };
	TRY_NEW(t->node, c->scratch, n);
	TRY_NEW(t->root, c->scratch, n);
	TRY_NEW(key, c->scratch, n);
	for (int64_t i = 0; i < n; i++)
		key[i] = (struct key){ tree->ints[i], id->ints[i], i };
	qsort(key, (size_t)n, sizeof *key, compare_keys);
	for (int64_t i = 0, root = 0; i < n; i++) {
		if (i && !compare_keys(&key[i - 1], &key[i]))
			return fail(e, LINNET_EATTR, "node %lld of tree %lld is listed twice", (long long)key[i].id, (long long)key[i].tree);
		root = i && key[i].tree == key[i - 1].tree && root < key[i].node ? root : key[i].node;
		if (i + 1 == n || key[i + 1].tree != key[i].tree)
			t->root[t->ntree++] = root;
	}
	for (int64_t i = 0; i < n; i++) {
		struct tree_node *x = &t->node[i];

		x->mode = (enum mode)mode_of(attr_of(c, "nodes_modes")->strings[i]);
		x->missing = list_length(missing) && missing->ints[i];
		x->feature = attr_of(c, "nodes_featureids")->ints[i];
		x->split = real_at(split, i);
		if (x->mode == LEAF)
			continue;
		TRY(find_node(key, n, tree->ints[i], attr_of(c, "nodes_truenodeids")->ints[i], "node", i, &x->yes, e));
		TRY(find_node(key, n, tree->ints[i], attr_of(c, "nodes_falsenodeids")->ints[i], "node", i, &x->no, e));
	}
	TRY(refuse_cycles(t, c->scratch, e));
	return read_votes(c, v, key, t);
}

static const struct attr *base_of(const struct op *op, const struct attr *attr)
{
	return reals(op, attr, "base_values", "base_values_as_tensor");
}

/* Y: [N, E] */
static enum linnet_code shape_regress(struct shape_call *c)
{
	int64_t n = target_count(c->op, c->attr, "target_ids");
	int64_t base = list_length(base_of(c->op, c->attr));
	dim samples, f;

	TRY(samples_shape(c, &samples, &f));
	TRY(check_lists(c, &target_names, n, f));
	if (base && base != n)
		return fail(c->e, LINNET_EATTR, "%lld base values are given for %lld targets", (long long)base, (long long)n);
	c->out[0].shape = (struct shape){ .rank = 2, .d = { samples, n } };
	return LINNET_OK;
}

/* The transform is applied to one target too, where onnxruntime ignores all but PROBIT. */
static enum linnet_code regress(struct kernel_call *c)
{
	struct ensemble t;

	TRY(read_ensemble(c, &target_names, &t));
	return regress_with(c, &t, (enum aggregate)attr_choice(c->op, c->attr, "aggregate_function"), base_of(c->op, c->attr),
	                    (enum transform)attr_choice(c->op, c->attr, "post_transform"));
}

/*
 * Of two classes only one may have votes, which then stand for both (`alone` is that class, else -1). Without negative
 * weights their sum is a probability, decided at one half; else it is decided at 0.
 */
static void look_at_votes(const struct op *op, const struct attr *attr, int64_t classes, int64_t *alone, bool *positive)
{
	const struct attr *ids = attr_get(op, attr, "class_ids"), *w = reals(op, attr, "class_weights", "class_weights_as_tensor");
	int64_t n = list_length(ids);

	*alone = classes == 2 && n ? ids->ints[0] : -1;
	*positive = true;
	for (int64_t i = 0; i < n; i++) {
		*alone = ids->ints[i] == *alone ? *alone : -1;
		*positive &= real_at(w, i) >= 0;
	}
}

static enum linnet_code shape_classify(struct shape_call *c)
{
	int64_t base = list_length(base_of(c->op, c->attr));
	struct labels l;
	int64_t alone;
	bool positive;
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	TRY(labels_read(c->op, c->attr, "classlabels_int64s", "classlabels_strings", &l, c->e));
	TRY(check_lists(c, &class_names, l.n, f));
	look_at_votes(c->op, c->attr, l.n, &alone, &positive);
	if (base && base != l.n && !(base == 1 && alone >= 0))
		return fail(c->e, LINNET_EATTR, "%lld base values are given for %lld classes", (long long)base, (long long)l.n);
	classes_shape(c, &l, n, l.n);
	return LINNET_OK;
}

/*
 * The class of the largest score and the scores, transformed; but of two classes of which one alone has votes, with sum s, and
 * which have no base value each:
 *
 *   the second is chosen where s > 1/2, or where weights may be negative s > 0;
 *   if the votes are for the first, the scores are 1 - s, s (NONE with weights >= 0, PROBIT) or -s, s, transformed.
 *
 * So does onnxruntime with NONE and LOGISTIC; others it does not apply there, the reference evaluator does. Two classes that both
 * have votes are as more than two are, where onnxruntime asks only whether the second's score is above 0.
 */
static enum linnet_code classify(struct kernel_call *c)
{
	enum transform transform = (enum transform)attr_choice(c->op, c->attr, "post_transform");
	const struct attr *base = base_of(c->op, c->attr);
	struct linnet_error *e = c->e;
	struct ensemble t;
	struct labels l;
	int64_t alone, n;
	bool positive, *seen;
	double *s;

	TRY(labels_read(c->op, c->attr, "classlabels_int64s", "classlabels_strings", &l, e));
	TRY(read_ensemble(c, &class_names, &t));
	n = l.n;
	look_at_votes(c->op, c->attr, n, &alone, &positive);
	if (list_length(base) == 2)
		alone = -1;
	TRY_NEW(seen, c->scratch, n);
	TRY_NEW(s, c->scratch, n);
	for (int64_t i = 0; i < sample_count(c->in[0]); i++) {
		int64_t class;

		aggregate(&t, SUM, c->in[0], i, n, seen, s);
		for (int64_t k = 0; k < n && alone < 0 && list_length(base); k++)
			s[k] += real_at(base, k);
		if (alone >= 0)
			s[alone] += list_length(base) ? real_at(base, 0) : 0;
		class = alone < 0 ? largest(s, n) : s[alone] > (positive ? 0.5 : 0);
		if (alone == 0) {
			s[1] = s[0];
			s[0] = transform == TRANSFORM_PROBIT || (transform == TRANSFORM_NONE && positive) ? 1 - s[1] : -s[1];
		}
		if (c->out[0])
			label_put(c->out[0], i, &l, class);
		if (c->out[1])
			scores_put(c->out[1], i * n, s, n, transform);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define NEEDED(title, what) { .name = title, .kind = what, .flags = REQUIRED }
#define TENSOR_SINCE_3(title) { .name = title, .kind = ATTR_TENSOR, .since = 3 }
#define NODES                                                                                      \
	INT_LIST("nodes_falsenodeids"), INT_LIST("nodes_featureids"), FLOAT_LIST("nodes_hitrates"),                   \
		TENSOR_SINCE_3("nodes_hitrates_as_tensor"), INT_LIST("nodes_missing_value_tracks_true"),              \
		STRING_LIST("nodes_modes"), INT_LIST("nodes_nodeids"), INT_LIST("nodes_treeids"),                     \
		INT_LIST("nodes_truenodeids"), FLOAT_LIST("nodes_values"), TENSOR_SINCE_3("nodes_values_as_tensor")
#define BASE FLOAT_LIST("base_values"), TENSOR_SINCE_3("base_values_as_tensor")
#define N_TARGETS { .name = "n_targets", .kind = ATTR_INT, .flags = OPTIONAL, .lo = 1, .hi = INT32_MAX }

static const struct op rows[] = {
	{
		ML, .name = "TreeEnsemble", .since = 5,
		.doc = "What the leaves of decision trees say of a sample, aggregated by target and transformed.",
		.in = IN({ "X", T, FLOW_NONE }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "aggregate_function", .kind = ATTR_INT, .i = SUM, .lo = AVERAGE, .hi = MAX },
		              NEEDED("leaf_targetids", ATTR_INTS), NEEDED("leaf_weights", ATTR_TENSOR),
		              LIST("membership_values", ATTR_TENSOR), N_TARGETS, NEEDED("nodes_falseleafs", ATTR_INTS),
		              NEEDED("nodes_falsenodeids", ATTR_INTS), NEEDED("nodes_featureids", ATTR_INTS),
		              LIST("nodes_hitrates", ATTR_TENSOR), INT_LIST("nodes_missing_value_tracks_true"),
		              NEEDED("nodes_modes", ATTR_TENSOR), NEEDED("nodes_splits", ATTR_TENSOR), NEEDED("nodes_trueleafs", ATTR_INTS),
		              NEEDED("nodes_truenodeids", ATTR_INTS),
		              { .name = "post_transform", .kind = ATTR_INT, .lo = TRANSFORM_NONE, .hi = TRANSFORM_PROBIT },
		              NEEDED("tree_roots", ATTR_INTS)),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_ensemble, .kernel = evaluate_ensemble,
	},
	{
		ML, .name = "TreeEnsembleClassifier", .since = 1,
		.doc = "The class decision trees vote for, and the classes' scores, transformed. TreeEnsemble since opset 5.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }, { "Z", T3 }),
		.attr = ATTRS(BASE, INT_LIST("class_ids"), INT_LIST("class_nodeids"), INT_LIST("class_treeids"), FLOAT_LIST("class_weights"),
		              TENSOR_SINCE_3("class_weights_as_tensor"), INT_LIST("classlabels_int64s"), STRING_LIST("classlabels_strings"),
		              NODES, POST_TRANSFORM),
		.types = { [T1] = ML_NUMBERS, [T2] = SET(INT64) | SET(STRING), [T3] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_classify, .kernel = classify,
	},
	{
		ML, .name = "TreeEnsembleRegressor", .since = 1,
		.doc = "What the leaves of decision trees say of a sample, aggregated by target and transformed. TreeEnsemble since opset 5.",
		.in = IN({ "X", T, FLOW_NONE }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "aggregate_function", .kind = ATTR_STRING, .s = "SUM", .oneof = "AVERAGE|SUM|MIN|MAX" }, BASE, N_TARGETS,
		              NODES, POST_TRANSFORM, INT_LIST("target_ids"), INT_LIST("target_nodeids"), INT_LIST("target_treeids"),
		              FLOAT_LIST("target_weights"), TENSOR_SINCE_3("target_weights_as_tensor")),
		.types = { [T] = ML_NUMBERS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_regress, .kernel = regress,
	},
};
const struct op_family trees_ops = FAMILY("trees", rows);
