/* Whether models compute what they should. */
#ifndef LINNET_VALIDATE_H
#define LINNET_VALIDATE_H

#include "runtime/runtime.h"

/* ---- Recorded cases (runner.c) ---- */

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP };

struct case_opt {
	struct run_opt run;
	double rtol, atol; /* |found - expected| <= atol + rtol |expected|; both 0: 1e-3 and 1e-7, the official
	                    * ones; rtol is at least 2^-6 for bfloat16 */
	const struct linnet_limits *limits;
	bool passes;       /* run the graph after the exact passes instead of as it is written */
	uint32_t changes;  /* at most so many changes by passes; 0: all. For finding a wrong one by bisection */
};

/* One data set of one folder, or the folder as a whole when it did not come so far. */
struct case_result {
	const char *folder;
	const char *set;         /* "test_data_set_0"; "" for the folder */
	enum verdict verdict;
	struct linnet_error why; /* unless passed */
};

/*
 * Run a folder in the layout of ONNX's backend tests: model.onnx and test_data_set_<k>/input_<i>.pb, output_<i>.pb. A tensor is
 * for the input or output of its name, or when it has none of those names, for number i. `report` is called for each data
 * set. A model that needs what linnet lacks is skipped, and so is a folder without data sets.
 *
 * Returns LINNET_OK whatever the verdicts. Errors: LINNET_EIO there is no such folder; LINNET_EMEM.
 */
enum linnet_code case_run(const char *folder, const struct case_opt *opt,
                          void (*report)(void *ctx, const struct case_result *r), void *ctx, struct linnet_error *e);

#endif
