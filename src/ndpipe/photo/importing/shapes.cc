#include "ndpipe/photo/importing/shapes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ndpipe::photo {
namespace {

// Signed distance functions: negative inside, in units of the shape's half size; some are only near
// to the true distance, which the smoothed edge forgives.
float CircleDistance(float x, float y, float radius) { return std::hypot(x, y) - radius; }
float BoxDistance(float x, float y, float half_width, float half_height) {
  return std::max(std::abs(x) - half_width, std::abs(y) - half_height);
}

float PolygonDistance(float x, float y, int sides, float inner_radius) {
  const float sector = 2 * std::numbers::pi_v<float> / static_cast<float>(sides);
  const float angle = std::atan2(x, -y);
  const float folded = angle - sector * std::floor(angle / sector + 0.5F);
  return std::hypot(x, y) * std::cos(folded) - inner_radius;
}

float StarDistance(float x, float y) {
  const float sector = 2 * std::numbers::pi_v<float> / 5;
  const float angle = std::atan2(x, -y);
  const float folded = std::abs(angle - sector * std::floor(angle / sector + 0.5F));
  // The edge from a tip (radius 1, angle 0) to an inner corner (radius 0.42, half a sector).
  const float length = std::hypot(x, y);
  const float px = length * std::cos(folded) - 1;
  const float py = length * std::sin(folded);
  const float ex = 0.42F * std::cos(sector / 2) - 1;
  const float ey = 0.42F * std::sin(sector / 2);
  return (px * ey - py * ex) / std::hypot(ex, ey);
}

float HeartDistance(float x, float y) {
  const float ax = std::abs(x) * 1.12F;
  const float ay = -y * 1.12F + 0.1F;
  const float rounded = ay - 0.62F * std::sqrt(ax);
  return (std::sqrt(ax * ax + rounded * rounded * 1.25F) - 0.86F) * 0.7F;
}

}  // namespace

float Distance(Shape shape, float x, float y) {
  switch (shape) {
    case Shape::kCircle:
      return CircleDistance(x, y, 0.92F);
    case Shape::kSquare:
      return BoxDistance(x, y, 0.8F, 0.8F);
    case Shape::kTriangle:
      return PolygonDistance(x, -y - 0.2F, 3, 0.54F);
    case Shape::kStar:
      return StarDistance(x, y);
    case Shape::kCross:
      return std::min(BoxDistance(x, y, 0.95F, 0.32F), BoxDistance(x, y, 0.32F, 0.95F));
    case Shape::kHeart:
      return HeartDistance(x, y);
    case Shape::kRing:
      return std::abs(std::hypot(x, y) - 0.68F) - 0.27F;
    case Shape::kHexagon:
      return PolygonDistance(x, y, 6, 0.82F);
    case Shape::kCrescent:
      return std::max(CircleDistance(x, y, 0.95F), 0.78F - std::hypot(x - 0.48F, y));
    case Shape::kArrow:
      return std::min(BoxDistance(x + 0.3F, y, 0.65F, 0.24F),
                      std::max(std::abs(y) * 0.8F + (x - 0.95F) * 0.8F, -(x - 0.12F)));
  }
  return 1;
}

float TextureAt(Texture texture, float x, float y, float cells, float soft) {
  const float pi = std::numbers::pi_v<float>;
  float wave = -1;
  switch (texture) {
    case Texture::kPlain:
      return 0;
    case Texture::kStriped:
      wave = std::sin(x * cells * pi);
      break;
    case Texture::kChecked:
      wave = std::sin(x * cells * pi) * std::sin(y * cells * pi) * 1.5F;
      break;
    case Texture::kDotted: {
      const float u = x * cells * 0.8F;
      const float v = y * cells * 0.8F;
      wave = (0.3F - std::hypot(u - std::floor(u) - 0.5F, v - std::floor(v) - 0.5F)) * 4;
      break;
    }
    case Texture::kWavy:
      wave = std::sin((y + 0.16F * std::sin(x * cells * 2.2F)) * cells * 1.6F * pi);
      break;
  }
  return std::clamp(wave / soft + 0.5F, 0.0F, 1.0F);
}

}  // namespace ndpipe::photo
