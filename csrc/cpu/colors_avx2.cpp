// The same for AVX2.
#include "colors_rows.h"

namespace liif {

void to_rgb_avx2(const ColorParams& p, int64_t begin, int64_t end) { to_rgb_any(p, begin, end); }
void from_rgb_avx2(const ColorParams& p, int64_t begin, int64_t end) { from_rgb_any(p, begin, end); }

}  // namespace liif
