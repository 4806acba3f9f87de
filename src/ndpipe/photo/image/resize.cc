#include "ndpipe/photo/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ndpipe/photo/image/convolve.h"

namespace ndpipe::photo {
namespace {

// Which way the stored picture lies (EXIF 2.32, tag 0x0112).
struct Turn {
  bool transposed;  // the upright picture's rows are the stored picture's columns
  bool flipped_x;   // the upright picture reads the stored columns from the right
  bool flipped_y;   // … the stored rows from below
};

Turn TurnOf(int orientation) {
  switch (orientation) {
    case 2:
      return {false, true, false};
    case 3:
      return {false, true, true};
    case 4:
      return {false, false, true};
    case 5:
      return {true, false, false};
    case 6:
      return {true, false, true};
    case 7:
      return {true, true, true};
    case 8:
      return {true, true, false};
    default:
      return {false, false, false};
  }
}

// One axis of the stored picture: how it is resized, and the part of the result that is wanted.
struct Axis {
  int stored_size;      // pixels of the scaled size
  double covered_size;  // of them covered by the photo
  int resized_size;
  int crop_begin;
  int crop_size;
  bool flipped;
};

double Bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

double Triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

int32_t ToFixedPoint(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

// How the axis is shrunk, and how far from a resized pixel's centre the filter reaches.
struct Reach {
  explicit Reach(const Axis& axis, bool cubic)
      : scale(axis.covered_size / axis.resized_size),
        filter_scale(std::max(scale, 1.0)),
        support((cubic ? 2.0 : 1.0) * filter_scale),
        max_count(std::min(static_cast<int>(std::ceil(support)) * 2 + 1, axis.stored_size)) {}

  double scale;
  double filter_scale;
  double support;
  int max_count;
};

// A flipped axis is weighed as the upright picture's and mirrored as a whole, so that it rounds
// alike. At a reduced scale the photo may end within a pixel, and mirroring would shift it.
bool IsMirrored(const Axis& axis) { return axis.flipped && axis.covered_size == axis.stored_size; }

// The run of stored pixels, not yet mirrored, that pixel i of the crop is the weighted sum of.
struct Run {
  Run(const Axis& axis, const Reach& reach, int i) {
    const double upright = (axis.crop_begin + static_cast<double>(i) + 0.5) * reach.scale;
    center = axis.flipped && !IsMirrored(axis) ? axis.covered_size - upright : upright;
    begin = std::max(0, static_cast<int>(center - reach.support + 0.5));
    const int end = std::min(axis.stored_size, static_cast<int>(center + reach.support + 0.5));
    count = std::min(end - begin, reach.max_count);
  }
  int StoredBegin(const Axis& axis) const {
    return IsMirrored(axis) ? axis.stored_size - begin - count : begin;
  }

  double center;
  int begin;
  int count;
};

// Pillow's precompute_coeffs and normalize_coeffs_8bpc (src/libImaging/Resample.c), for the crop's
// pixels only, mirrored where the axis is flipped.
Taps TapsOf(const Axis& axis, Interpolation interpolation) {
  const bool cubic = interpolation == Interpolation::kBicubic;
  const Reach reach(axis, cubic);
  const bool mirrored = IsMirrored(axis);

  Taps taps;
  taps.stride = (reach.max_count + kTapGroup - 1) / kTapGroup * kTapGroup;
  const auto crop_size = static_cast<size_t>(axis.crop_size);
  taps.begins.resize(crop_size);
  taps.counts.resize(crop_size);
  taps.weights.assign(crop_size * static_cast<size_t>(taps.stride), 0);
  std::vector<double> exact(static_cast<size_t>(reach.max_count));
  for (size_t i = 0; i < crop_size; ++i) {
    const Run run(axis, reach, static_cast<int>(i));
    const int count = run.count;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double x = (k + run.begin - run.center + 0.5) * (1.0 / reach.filter_scale);
      exact[static_cast<size_t>(k)] = cubic ? Bicubic(x) : Triangle(x);
      sum += exact[static_cast<size_t>(k)];
    }
    int32_t* weights = taps.weights.data() + i * static_cast<size_t>(taps.stride);
    for (int k = 0; k < count; ++k) {
      double weight = exact[static_cast<size_t>(k)];
      if (sum != 0) weight *= 1.0 / sum;
      weights[mirrored ? count - 1 - k : k] = ToFixedPoint(weight);
    }
    taps.begins[i] = run.StoredBegin(axis);
    taps.counts[i] = count;
  }
  return taps;
}

// round((size - crop) / 2), halves to even, as Python rounds and torchvision's CenterCrop cuts.
int CropBegin(int size, int crop) {
  const int margin = size - crop;
  const int half = margin / 2;
  return margin % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

// [first, last) of the stored pixels that the taps read.
struct Range {
  int first;
  int last;
};
Range RangeOf(const Taps& taps) {
  Range range{taps.begins[0], 0};
  for (size_t i = 0; i < taps.begins.size(); ++i) {
    range.first = std::min(range.first, taps.begins[i]);
    range.last = std::max(range.last, taps.begins[i] + taps.counts[i]);
  }
  return range;
}

void Shift(Taps& taps, int by) {
  for (int& begin : taps.begins) begin -= by;
}

// Columns, then rows, of the stored picture: uint8 [rows, columns, 4].
RgbxImage ResizeColumnsFirst(const RgbxImage& image, const Taps& columns, Taps rows) {
  const Range range = RangeOf(rows);
  RgbxImage narrow(static_cast<int>(columns.begins.size()), range.last - range.first);
  const ColumnWeights weights(columns);
  for (int y = 0; y < narrow.height; ++y) {
    ConvolveRow(image.row(range.first + y), columns, weights, narrow.row(y));
  }
  Shift(rows, range.first);
  RgbxImage small(narrow.width, static_cast<int>(rows.begins.size()));
  ConvolveColumns(narrow.row(0), narrow.stride(), narrow.stride(), rows, small.row(0));
  return small;
}

// Rows, then columns.
RgbxImage ResizeRowsFirst(const RgbxImage& image, Taps columns, const Taps& rows) {
  const Range range = RangeOf(columns);
  RgbxImage flat(range.last - range.first, static_cast<int>(rows.begins.size()));
  ConvolveColumns(image.row(0) + size_t{4} * static_cast<size_t>(range.first), image.stride(),
                  flat.stride(), rows, flat.row(0));
  Shift(columns, range.first);
  const ColumnWeights weights(columns);
  RgbxImage small(static_cast<int>(columns.begins.size()), flat.height);
  for (int y = 0; y < flat.height; ++y) ConvolveRow(flat.row(y), columns, weights, small.row(y));
  return small;
}

void Pack(const RgbxImage& small, bool transposed, std::span<uint8_t> out) {
  uint8_t* to = out.data();
  const int height = transposed ? small.width : small.height;
  const int width = transposed ? small.height : small.width;
  const size_t step = transposed ? small.stride() : 4;
  for (int y = 0; y < height; ++y) {
    const uint8_t* from =
        transposed ? small.row(0) + size_t{4} * static_cast<size_t>(y) : small.row(y);
    for (int x = 0; x < width; ++x, from += step, to += 3) std::memcpy(to, from, 3);
  }
}

// The two axes of a photo under a resize rule.
struct Axes {
  Axes(const PhotoShape& photo, const PreprocessSpec& spec) : turn(TurnOf(photo.orientation)) {
    const int short_side = std::min(photo.width, photo.height);
    const auto axis = [&](int stored, double covered, int size, int crop, bool flipped) {
      const auto resized = static_cast<int>(int64_t{spec.resize_short_side} * size / short_side);
      return Axis{stored, covered, resized, CropBegin(resized, crop), crop, flipped};
    };
    columns = axis(photo.scaled_width, photo.covered_width, photo.width,
                   turn.transposed ? spec.crop_height : spec.crop_width, turn.flipped_x);
    rows = axis(photo.scaled_height, photo.covered_height, photo.height,
                turn.transposed ? spec.crop_width : spec.crop_height, turn.flipped_y);
  }

  Turn turn;
  Axis columns;
  Axis rows;
};

// [first, last) of the stored pixels that the crop reads: the runs move one way along the axis.
Range RangeOf(const Axis& axis, bool cubic) {
  const Reach reach(axis, cubic);
  const Run first(axis, reach, 0);
  const Run last(axis, reach, axis.crop_size - 1);
  const int a = first.StoredBegin(axis);
  const int b = last.StoredBegin(axis);
  return {std::min(a, b), std::max(a + first.count, b + last.count)};
}

}  // namespace

Window WindowOf(const PhotoShape& shape, const PreprocessSpec& spec) {
  const Axes axes(shape, spec);
  const bool cubic = spec.interpolation == Interpolation::kBicubic;
  const Range columns = RangeOf(axes.columns, cubic);
  const Range rows = RangeOf(axes.rows, cubic);
  return {columns.first, rows.first, columns.last, rows.last};
}

void ResizeAndCrop(const DecodedPhoto& photo, const PreprocessSpec& spec, std::span<uint8_t> out) {
  const Axes axes(photo.shape, spec);
  Taps columns = TapsOf(axes.columns, spec.interpolation);
  Taps rows = TapsOf(axes.rows, spec.interpolation);
  Shift(columns, photo.left);
  Shift(rows, photo.top);
  // Pillow rounds to 8 bits after the upright picture's rows; so does this.
  const bool transposed = axes.turn.transposed;
  const RgbxImage small = transposed ? ResizeRowsFirst(photo.image, std::move(columns), rows)
                                     : ResizeColumnsFirst(photo.image, columns, std::move(rows));
  Pack(small, transposed, out);
}

}  // namespace ndpipe::photo
