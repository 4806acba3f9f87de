#include "ndpipe/photo/importing/scene.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace ndpipe::photo {
namespace {

struct Rgb {
  float r, g, b;
};

Rgb Mix(const Rgb& a, const Rgb& b, float t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

constexpr std::array<Rgb, kNumColours> kColours = {{{212, 38, 36},
                                                    {44, 150, 58},
                                                    {38, 78, 200},
                                                    {238, 208, 40},
                                                    {122, 44, 158},
                                                    {240, 126, 26},
                                                    {50, 190, 204},
                                                    {240, 130, 178}}};

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

// How much of the second colour stands at a point: 0 or 1, softened over about `soft`.
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

class Painter {
 public:
  Painter(int width, int height, Random& random) : random_(random) {
    picture_.width = width;
    picture_.height = height;
    picture_.rgb.resize(static_cast<size_t>(width) * height * 3);
  }

  void Background();
  void Clutter(int count, float smallest, float largest, float opacity);
  void Object(const Subject& subject);
  void Light();
  void Blur();
  void Noise();
  Picture Take() { return std::move(picture_); }

 private:
  struct Placement {
    float x, y, half_size, angle;
  };
  // colour_at(u, v) → the colour at the point (u, v) of the shape's own plane.
  template <typename ColourAt>
  void Fill(Shape shape, const Placement& place, float opacity, ColourAt colour_at);
  Rgb MutedColour();
  uint8_t* At(int x, int y) {
    return picture_.rgb.data() + (static_cast<size_t>(y) * picture_.width + x) * 3;
  }

  Picture picture_;
  Random& random_;
};

Rgb Painter::MutedColour() {
  const float light = random_.Uniform(50, 200);
  const float tint = random_.Below(4) == 0 ? 6.0F : 32.0F;  // some scenes are nearly grey
  const auto channel = [&] { return std::clamp(light + random_.Uniform(-tint, tint), 0.F, 255.F); };
  const float r = channel();
  const float g = channel();
  return {r, g, channel()};
}

// A slanted gradient between two colours with coarse and fine cloudiness.
void Painter::Background() {
  constexpr int kGrid = 16;
  const Rgb first = MutedColour();
  const Rgb second = MutedColour();
  std::array<float, kGrid * kGrid> clouds;
  const float strength = random_.Uniform(5, 40);
  for (float& cloud : clouds) cloud = random_.Uniform(-strength, strength);
  const float angle = random_.Uniform(0, 2 * std::numbers::pi_v<float>);
  const float dx = std::cos(angle) / static_cast<float>(picture_.width);
  const float dy = std::sin(angle) / static_cast<float>(picture_.height);
  const float cells = random_.Uniform(2, kGrid - 1.01F);
  for (int y = 0; y < picture_.height; ++y) {
    const float v = cells * static_cast<float>(y) / static_cast<float>(picture_.height);
    const int row = static_cast<int>(v);
    const float fv = v - static_cast<float>(row);
    uint8_t* out = At(0, y);
    for (int x = 0; x < picture_.width; ++x, out += 3) {
      const float u = cells * static_cast<float>(x) / static_cast<float>(picture_.width);
      const int column = static_cast<int>(u);
      const float fu = u - static_cast<float>(column);
      const float* corner = clouds.data() + row * kGrid + column;
      const float top = corner[0] + (corner[1] - corner[0]) * fu;
      const float bottom = corner[kGrid] + (corner[kGrid + 1] - corner[kGrid]) * fu;
      const float cloud = top + (bottom - top) * fv;
      const float t = std::clamp(0.5F + static_cast<float>(x - picture_.width / 2) * dx +
                                     static_cast<float>(y - picture_.height / 2) * dy,
                                 0.0F, 1.0F);
      const Rgb colour = Mix(first, second, t);
      out[0] = static_cast<uint8_t>(std::clamp(colour.r + cloud, 0.F, 255.F));
      out[1] = static_cast<uint8_t>(std::clamp(colour.g + cloud, 0.F, 255.F));
      out[2] = static_cast<uint8_t>(std::clamp(colour.b + cloud, 0.F, 255.F));
    }
  }
}

template <typename ColourAt>
void Painter::Fill(Shape shape, const Placement& place, float opacity, ColourAt colour_at) {
  const float reach = place.half_size * 1.45F;
  const int left = std::max(0, static_cast<int>(place.x - reach));
  const int right = std::min(picture_.width, static_cast<int>(place.x + reach) + 1);
  const int top = std::max(0, static_cast<int>(place.y - reach));
  const int bottom = std::min(picture_.height, static_cast<int>(place.y + reach) + 1);
  const float cosine = std::cos(place.angle) / place.half_size;
  const float sine = std::sin(place.angle) / place.half_size;
  for (int y = top; y < bottom; ++y) {
    for (int x = left; x < right; ++x) {
      const float px = static_cast<float>(x) - place.x;
      const float py = static_cast<float>(y) - place.y;
      const float u = px * cosine + py * sine;
      const float v = py * cosine - px * sine;
      const float cover = 0.5F - Distance(shape, u, v) * place.half_size;
      if (cover <= 0) continue;
      const float alpha = std::min(cover, 1.0F) * opacity;
      const Rgb colour = colour_at(u, v);
      uint8_t* out = At(x, y);
      out[0] = static_cast<uint8_t>(out[0] + (colour.r - out[0]) * alpha);
      out[1] = static_cast<uint8_t>(out[1] + (colour.g - out[1]) * alpha);
      out[2] = static_cast<uint8_t>(out[2] + (colour.b - out[2]) * alpha);
    }
  }
}

// Small muted things of any shape, so that the label is not simply "what is not background".
void Painter::Clutter(int count, float smallest, float largest, float opacity) {
  const auto side = static_cast<float>(std::min(picture_.width, picture_.height));
  for (int i = 0; i < count; ++i) {
    const auto shape = static_cast<Shape>(random_.Below(kNumShapes));
    const Placement place = {random_.Uniform(0, static_cast<float>(picture_.width)),
                             random_.Uniform(0, static_cast<float>(picture_.height)),
                             side * random_.Uniform(smallest, largest), random_.Uniform(0, 6.28F)};
    const Rgb colour = MutedColour();
    Fill(shape, place, opacity * random_.Uniform(0.5F, 1), [&](float, float) { return colour; });
  }
}

void Painter::Object(const Subject& subject) {
  const auto side = static_cast<float>(std::min(picture_.width, picture_.height));
  const float half_size = side * random_.Uniform(0.24F, 0.4F);
  const float room_x = static_cast<float>(picture_.width) / 2 - half_size;
  const float room_y = static_cast<float>(picture_.height) / 2 - half_size;
  // Near enough to the middle that a centre crop still shows it.
  const float shift = std::min({room_x, room_y, side * 0.16F});
  const Placement place = {static_cast<float>(picture_.width) / 2 + random_.Uniform(-shift, shift),
                           static_cast<float>(picture_.height) / 2 + random_.Uniform(-shift, shift),
                           half_size, random_.Uniform(-0.4F, 0.4F)};
  Rgb base = kColours[static_cast<size_t>(subject.colour)];
  base.r = std::clamp(base.r + random_.Uniform(-22, 22), 0.F, 255.F);
  base.g = std::clamp(base.g + random_.Uniform(-22, 22), 0.F, 255.F);
  base.b = std::clamp(base.b + random_.Uniform(-22, 22), 0.F, 255.F);
  const Rgb white = {245, 243, 238};
  const Rgb second = Mix(base, white, random_.Uniform(0.72F, 0.95F));
  const float cells = random_.Uniform(2.6F, 4.2F);
  const float soft = std::max(0.15F, 8.0F / half_size);
  const float phase = random_.Uniform(0, 1);
  const float shade = random_.Uniform(-0.22F, 0.22F);

  Placement shadow = place;
  shadow.x += half_size * random_.Uniform(0.03F, 0.12F);
  shadow.y += half_size * random_.Uniform(0.03F, 0.12F);
  Fill(subject.shape, shadow, random_.Uniform(0.2F, 0.6F),
       [](float, float) { return Rgb{18, 18, 22}; });
  Fill(subject.shape, place, 1, [&](float u, float v) {
    const float t = TextureAt(subject.texture, u + phase, v + phase, cells, soft);
    const Rgb colour = Mix(base, second, t);
    const float light = 1 + shade * (u + v);
    return Rgb{std::min(colour.r * light, 255.F), std::min(colour.g * light, 255.F),
               std::min(colour.b * light, 255.F)};
  });
}

// One side is brighter than the other, the whole too bright or too dark, its tint warm or cold.
void Painter::Light() {
  const float exposure = random_.Uniform(0.7F, 1.15F);
  const float warmth = random_.Uniform(-0.07F, 0.07F);
  const float slope_x = random_.Uniform(-0.25F, 0.25F) / static_cast<float>(picture_.width);
  const float slope_y = random_.Uniform(-0.25F, 0.25F) / static_cast<float>(picture_.height);
  const float red = 1 + warmth;
  const float blue = 1 - warmth;
  for (int y = 0; y < picture_.height; ++y) {
    uint8_t* out = At(0, y);
    float light = exposure + slope_y * static_cast<float>(y - picture_.height / 2) -
                  slope_x * static_cast<float>(picture_.width) / 2;
    for (int x = 0; x < picture_.width; ++x, out += 3, light += slope_x) {
      out[0] = static_cast<uint8_t>(std::min(out[0] * light * red, 255.F));
      out[1] = static_cast<uint8_t>(std::min(out[1] * light, 255.F));
      out[2] = static_cast<uint8_t>(std::min(out[2] * light * blue, 255.F));
    }
  }
}

// A camera out of focus: the mean of 3 × 3 pixels, the picture's edge left as it is.
void Painter::Blur() {
  const std::vector<uint8_t> from = picture_.rgb;
  const auto row = static_cast<ptrdiff_t>(picture_.width) * 3;
  for (int y = 1; y + 1 < picture_.height; ++y) {
    const uint8_t* in = from.data() + y * row;
    uint8_t* out = picture_.rgb.data() + y * row;
    for (ptrdiff_t i = 3; i + 3 < row; ++i) {
      const int sum = in[i - row - 3] + in[i - row] + in[i - row + 3] + in[i - 3] + in[i] +
                      in[i + 3] + in[i + row - 3] + in[i + row] + in[i + row + 3];
      out[i] = static_cast<uint8_t>(sum * 7282 >> 16);
    }
  }
}

// A sensor's noise: the sum of two uniform draws a channel, eight channels from one random number.
void Painter::Noise() {
  const int strength = random_.Below(4) == 0 ? random_.Below(28) : random_.Below(10);
  if (strength == 0) return;
  std::array<int8_t, 256> table;
  for (auto& value : table) {
    value =
        static_cast<int8_t>(random_.Below(strength + 1) + random_.Below(strength + 1) - strength);
  }
  uint64_t bits = 0;
  for (size_t i = 0; i < picture_.rgb.size(); ++i) {
    bits = i % 8 == 0 ? random_.Next() : bits >> 8;
    picture_.rgb[i] = static_cast<uint8_t>(std::clamp(picture_.rgb[i] + table[bits & 255], 0, 255));
  }
}

}  // namespace

Picture DrawScene(const Subject& subject, int width, int height, Random& random) {
  Painter painter(width, height, random);
  painter.Background();
  painter.Clutter(4 + random.Below(9), 0.03F, 0.14F, 0.9F);
  painter.Object(subject);
  painter.Clutter(random.Below(4), 0.02F, 0.06F, 1);  // some of it hides a bit of the object
  painter.Light();
  for (int i = random.Below(5) - 2; i > 0; --i) painter.Blur();
  painter.Noise();
  return painter.Take();
}

}  // namespace ndpipe::photo
