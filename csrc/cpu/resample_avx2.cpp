// AVX2 and FMA.
#include "floats_avx2.h"
#include "resample_simd.h"

namespace liif {
namespace {

struct Eight : Floats {
  static Reg product(Reg a, Reg b) {
    Reg v = mul(a, b);
    asm("" : "+x"(v));
    return v;
  }
  static Reg clamp(Reg v, Reg low, Reg high) { return _mm256_min_ps(_mm256_max_ps(v, low), high); }
  static __m256 eights(Reg v, int) { return v; }
  static void store_bytes(uint8_t* out, Reg r, Reg g, Reg b) { store_eight(out, r, g, b); }
};

}  // namespace

void resample_avx2(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Vectors<Eight>>(p, begin, end, strip);
}

}  // namespace liif
