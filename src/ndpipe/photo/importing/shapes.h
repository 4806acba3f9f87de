// The outlines and surfaces that the generator's scenes are made of.
#pragma once

namespace ndpipe::photo {

enum class Shape {
  kCircle,
  kSquare,
  kTriangle,
  kStar,
  kCross,
  kHeart,
  kRing,
  kHexagon,
  kCrescent,
  kArrow
};
inline constexpr int kNumShapes = 10;
enum class Texture { kPlain, kStriped, kChecked, kDotted, kWavy };
inline constexpr int kNumTextures = 5;

// How far a point is from the shape's outline, negative inside, in units of the shape's half size.
float Distance(Shape shape, float x, float y);

// How much of the second colour stands at a point: 0 or 1, softened over about `soft`.
float TextureAt(Texture texture, float x, float y, float cells, float soft);

}  // namespace ndpipe::photo
