// The resampler once, over what differs between instruction sets. The rows first: for an output row the fine rows it needs, split
// by channel and kept in a ring, are summed; then each of its pixels is a sum of kTaps neighbours in that sum.
//
// S has:  part(p, left): the columns of a strip from output column `left` on, see `Part`;
//         begin(p, part, strip): once before a strip's rows;
//         split_row<Elem>(p, part, row, out): the fine rows of a row of cells, by channel;
//         together(y, i): whether output rows i and i + 1, whose fine rows lie one apart and which leave out the last of their
//         kTaps, are summed at once;
//         add_rows(part, ring rows, taps, count, out): out[n][x] = sum_k taps[k] * row[k + n][x], for `count` output rows;
//         columns(p, part, row, sum, strip): output columns of `part` from that.
#pragma once

#include <cstring>

#include "isa.h"

namespace liif {
namespace {

inline float load_as_float(const float* p) { return *p; }
inline float load_as_float(const uint16_t* p) { return bf16_to_float(*p); }

// Output columns [begin, end), each a fine one beyond the last and with the same taps: nearly all at x4, few at other scales.
struct Run {
  int64_t begin, end;
};

inline Run even_run(const TapTable& x, int64_t begin, int64_t end) {
  const auto even = [&](int64_t j) {  // from j to j + 1
    const float* taps = x.taps + j * kTaps;
    return x.first[j + 1] == x.first[j] + 1 && std::memcmp(taps, taps + kTaps, kTaps * sizeof(float)) == 0;
  };
  const int64_t middle = begin + (end - begin) / 2;
  Run run{middle, middle + 1};
  while (run.begin > begin && even(run.begin - 1)) --run.begin;
  while (run.end < end && even(run.end - 1)) ++run.end;
  return run;
}

// Output columns [left, right), which are made of cells [from, to).
struct Part {
  int64_t left, right, from, to;
  Run even;
  int64_t fine() const { return from * kFactor; }
  // Cells of a row that are there. Past the picture's edge all is zero.
  int64_t inside(const ResampleParams& p, int64_t row) const {
    return row < p.rows ? (to < p.columns ? to : p.columns) - from : 0;
  }
};

// As many columns from `left` on as a strip has room for.
inline Part part_from(const ResampleParams& p, int64_t left) {
  Part part{left, left + 1, p.x.first[left] / kFactor, 0, {}};
  const int64_t most = left + kStripOutputs < p.x.size ? left + kStripOutputs : p.x.size;
  while (part.right < most && p.x.first[part.right] + kTaps - part.fine() <= kStrip) ++part.right;
  part.to = (p.x.first[part.right - 1] + kTaps + kFactor - 1) / kFactor;
  part.even = even_run(p.x, left, part.right);
  return part;
}

// `count` cells from z on, of which `there` are there: as they are, or in `own`, with zeros for the others.
template <class Elem>
const Elem* whole_cells(const Elem* z, int64_t there, int64_t count, Elem* own) {
  if (there >= count) return z;
  std::memset(own, 0, count * kFineChannels * sizeof(Elem));
  if (there > 0) std::memcpy(own, z, there * kFineChannels * sizeof(Elem));
  return own;
}

template <class Elem>
void resample_point(const ResampleParams& p, int64_t i) {
  float rgb[3] = {};
  for (int k = 0; k < kTaps; ++k) {
    const int64_t line = p.y.first[i] + k, row = line / kFactor, a = line % kFactor;
    for (int l = 0; l < kTaps && row < p.rows; ++l) {
      const int64_t column = p.x.first[i] + l, cell = column / kFactor;
      if (cell >= p.columns) break;
      const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + cell * kFineChannels + a * 3 * kFactor;
      const float tap = p.y.taps[i * kTaps + k] * p.x.taps[i * kTaps + l];
      for (int c = 0; c < 3; ++c) rgb[c] += tap * load_as_float(z + c * kFactor + column % kFactor);
    }
  }
  store_rgb(p.out, i, i, rgb);
}

// Calls the next row of cells of a strip into the cache, a part with every output row: it lies too far away for processors to
// foresee, and all at once would hold up the rest.
template <class Elem>
class Ahead {
 public:
  // Until `lines` of the fine rows of a row of cells would be there.
  void until(const ResampleParams& p, const Part& part, int64_t row, int64_t lines) {
    if (row != row_) row_ = row, done_ = 0;
    if (row >= p.rows) return;
    const char* z =
        reinterpret_cast<const char*>(static_cast<const Elem*>(p.z) + row * p.z_row_stride + part.from * kFineChannels);
    const int64_t bytes = part.inside(p, row) * kFineChannels * sizeof(Elem) * lines / kFactor;
    for (; done_ < bytes; done_ += 64) __builtin_prefetch(z + done_, 0, 2);
  }

 private:
  int64_t row_ = -1, done_ = 0;
};

template <class S, class Elem>
void resample_range(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  if (p.out.paired) {
    for (int64_t i = begin; i < end; ++i) resample_point<Elem>(p, i);
    return;
  }
  for (int64_t left = 0; left < p.x.size;) {
    const Part part = S::part(p, left);
    left = part.right;
    S::begin(p, part, strip);
    int64_t next = p.y.first[begin] / kFactor;  // first row of cells not yet in the ring
    Ahead<Elem> ahead;
    for (int64_t i = begin, count; i < end; i += count) {
      count = i + 1 < end && S::together(p.y, i) ? 2 : 1;
      const int64_t first = p.y.first[i], row = first / kFactor, last = first + kTaps;
      next = next < row ? row : next;
      for (; next * kFactor < last; ++next) {
        S::template split_row<Elem>(p, part, next, strip.ring + next % kRingCells * kFactor);
      }
      ahead.until(p, part, next, last - (next - 1) * kFactor);
      for (int c = 0; c < 3; ++c) {
        const float* rows[kTaps];
        for (int k = 0; k < kTaps; ++k) rows[k] = strip.ring[(first + k) % (kRingCells * kFactor)][c];
        float* out[2] = {strip.sum[0][c], strip.sum[1][c]};
        S::add_rows(part, rows, p.y.taps + i * kTaps, count, out);
      }
      for (int64_t n = 0; n < count; ++n) S::columns(p, part, i + n, strip.sum[n], strip);
    }
  }
}

template <class S>
void resample_any(const ResampleParams& p, int64_t begin, int64_t end, Strip& strip) {
  p.type == Type::bf16 ? resample_range<S, uint16_t>(p, begin, end, strip) : resample_range<S, float>(p, begin, end, strip);
}

}  // namespace
}  // namespace liif
