/* Which instruction set the fast kernels use. */
#include <stdlib.h>
#include <string.h>

#include "ops/fast/mixed.h"
#include "ops/op.h"

static enum fast_level processor_level(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) /* all but the first processors that had AVX-512 */
		return LEVEL_AVX512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return LEVEL_AVX2;
#endif
	return LEVEL_BASE;
}

enum fast_level fast_level(void)
{
	static const char *const name[NLEVEL] = { "base", "avx2", "avx512" };
	const char *wish = getenv("LINNET_LEVEL");
	enum fast_level best = processor_level();

	for (int i = 0; wish && i < (int)best; i++)
		if (!strcmp(wish, name[i]))
			return (enum fast_level)i;
	return best;
}

bool mixed_usable(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	return fast_level() == LEVEL_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
	return false;
#endif
}
