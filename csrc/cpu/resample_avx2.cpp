// AVX2 and FMA.
#include "floats_avx2.h"
#include "resample_simd.h"

namespace liif {

void resample_avx2(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Floats>>(p, begin, end, strip);
}

}  // namespace liif
