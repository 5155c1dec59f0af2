// AVX-512: rows sixteen floats at a time.
#include "floats_avx512.h"
#include "resample_simd.h"

namespace liif {

void resample_avx512(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Floats>>(p, begin, end, strip);
}

}  // namespace liif
