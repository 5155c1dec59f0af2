// The colour conversions for processors of any kind.
#include "colors_rows.h"

namespace liif {

void to_rgb_scalar(const ColorParams& p, int64_t begin, int64_t end) { to_rgb_any(p, begin, end); }
void from_rgb_scalar(const ColorParams& p, int64_t begin, int64_t end) { from_rgb_any(p, begin, end); }

}  // namespace liif
