// The scalar resampler: the plainest statement of the algorithm, and what runs where no vector code was built.
#include "resample_rows.h"

namespace liif {
namespace {

struct Scalar {
  static Part part(const ResampleParams& p, int64_t left) { return part_from(p, left); }
  static void begin(const ResampleParams&, const Part&, Strip&) {}
  template <class Elem>
  static void split_row(const ResampleParams& p, const Part& part, int64_t row, float (*out)[3][kStrip]) {
    const int64_t inside = part.inside(p, row) * kFactor;
    const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + part.from * kFineChannels;
    int64_t at = 0;
    for (; at < inside; at += kFactor) {
      for (int a = 0; a < kFactor; ++a, z += 3 * kFactor) {
        for (int c = 0; c < 3; ++c) {
          for (int b = 0; b < kFactor; ++b) out[a][c][at + b] = load_as_float(z + c * kFactor + b);
        }
      }
    }
    for (; at < (part.to - part.from) * kFactor; ++at) {
      for (int a = 0; a < kFactor; ++a) out[a][0][at] = out[a][1][at] = out[a][2][at] = 0;
    }
  }
  static bool together(const TapTable&, int64_t) { return false; }
  static void add_rows(const Part& part, const float* const* rows, const float* taps, int64_t, float* const* out) {
    for (int64_t x = 0; x < (part.to - part.from) * kFactor; ++x) {
      float sum = 0;
      for (int k = 0; k < kTaps; ++k) sum += taps[k] * rows[k][x];
      out[0][x] = sum;
    }
  }
  static void columns(const ResampleParams& p, const Part& part, int64_t row, const float (*sum)[kStrip], const Strip&) {
    for (int64_t j = part.left; j < part.right; ++j) {
      float rgb[3] = {};
      for (int c = 0; c < 3; ++c) {
        for (int l = 0; l < kTaps; ++l) rgb[c] += p.x.taps[j * kTaps + l] * sum[c][p.x.first[j] - part.fine() + l];
      }
      store_rgb(p.out, row, j, rgb);
    }
  }
};

}  // namespace

void resample_scalar(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  resample_any<Scalar>(p, begin, end, strip);
}

}  // namespace liif
