// The same for AVX2, without the FMA that the file is compiled with: its bits are those of the others.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
#include "colors_rows.h"

namespace liif {

void to_rgb_avx2(const ColorParams& p, int64_t begin, int64_t end) { to_rgb_any(p, begin, end); }
void from_rgb_avx2(const ColorParams& p, int64_t begin, int64_t end) { from_rgb_any(p, begin, end); }

}  // namespace liif
