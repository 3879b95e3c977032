/* The fast kernels at every level. */
#include "ops/fast/fast.h"

#if defined(__x86_64__)
#define X(name)                                                                                    \
	extern const struct fast fast_##name##_base, fast_##name##_avx2, fast_##name##_avx512;     \
	const struct fast_set fast_##name = { .at = { &fast_##name##_base, &fast_##name##_avx2, &fast_##name##_avx512 } };
#else
#define X(name)                                                                                    \
	extern const struct fast fast_##name##_base;                                               \
	const struct fast_set fast_##name = { .at = { &fast_##name##_base, &fast_##name##_base, &fast_##name##_base } };
#endif
FAST_LIST(X)
