#include "ndpipe/extract/views.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <tuple>
#include <vector>

namespace ndpipe::extract {
namespace {

photo::PhotoId IdOf(int number) { return Sha256::Of("photo " + std::to_string(number)); }

// No two neighbours are equal, and no two rows or columns.
std::vector<uint8_t> Pattern(int height, int width) {
  std::vector<uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        pixels.push_back(static_cast<uint8_t>((7 * x + 13 * y + 50 * channel) % 256));
      }
    }
  }
  return pixels;
}

std::vector<uint8_t> Make(const std::vector<uint8_t>& pixels, int height, int width,
                          const ViewCrop& crop) {
  std::vector<uint8_t> out(pixels.size());
  MakeView(pixels, height, width, crop, out);
  return out;
}

std::tuple<int, int, int, int, bool, int, int> Fields(const ViewCrop& crop) {
  return {crop.left, crop.top, crop.width, crop.height, crop.mirrored, crop.gain, crop.shift};
}

TEST(ViewsTest, ACropIsAFunctionOfPhotoAndView) {
  std::set<std::tuple<int, int, int, int, bool, int, int>> crops;
  for (int photo = 0; photo < 20; ++photo) {
    for (int view = 1; view < kMaxViews; ++view) {
      const auto crop = CropOf(IdOf(photo), view, 224, 224);
      EXPECT_EQ(Fields(crop), Fields(CropOf(IdOf(photo), view, 224, 224)));
      crops.insert(Fields(crop));
    }
  }
  EXPECT_GT(crops.size(), 290U);  // of 300
}

// What old versions were trained on: a change of any of these needs a new kViewRule.
TEST(ViewsTest, CropsStayWhatTheyAre) {
  const photo::PhotoId id = IdOf(1);
  const ViewStrength strength{.min_side = 45875, .stretch = 6554, .colour = 13107};
  const auto crop = CropOf(id, 3, 224, 192, strength);
  EXPECT_EQ(Fields(crop), std::make_tuple(29, 12, 151, 163, true, 293, -12));
}

TEST(ViewsTest, CropsLieInPhotosOfAnySize) {
  const ViewStrength strengths[] = {
      {}, {.min_side = 0, .stretch = 65536, .colour = 65536}, {.min_side = 65536, .stretch = 0}};
  for (const auto& strength : strengths) {
    for (const auto& [height, width] : {std::pair{1, 1}, {1, 9}, {224, 224}, {33, 7}, {4096, 3}}) {
      for (int photo = 0; photo < 50; ++photo) {
        const auto crop = CropOf(IdOf(photo), 1 + photo % 15, height, width, strength);
        EXPECT_GE(crop.left, 0);
        EXPECT_GE(crop.top, 0);
        EXPECT_GE(crop.width, 1);
        EXPECT_GE(crop.height, 1);
        EXPECT_LE(crop.left + crop.width, width);
        EXPECT_LE(crop.top + crop.height, height);
      }
    }
  }
}

TEST(ViewsTest, ViewsAreAsFarFromThePhotoAsTheStrengthSays) {
  const ViewStrength strength{.min_side = 32768, .stretch = 0};
  int mirrored = 0;
  int smallest = 100;
  for (int photo = 0; photo < 400; ++photo) {
    const auto crop = CropOf(IdOf(photo), 1, 100, 100, strength);
    EXPECT_EQ(crop.width, crop.height);
    EXPECT_GE(crop.width, 50);
    EXPECT_EQ(crop.gain, 256);
    EXPECT_EQ(crop.shift, 0);
    smallest = std::min(smallest, crop.width);
    mirrored += crop.mirrored ? 1 : 0;
  }
  EXPECT_LE(smallest, 52);
  EXPECT_GT(mirrored, 150);
  EXPECT_LT(mirrored, 250);
}

TEST(ViewsTest, TheWholePhotoComesOutAsItIs) {
  for (const auto& [height, width] : {std::pair{1, 1}, {5, 7}, {224, 224}, {31, 2}}) {
    const auto pixels = Pattern(height, width);
    EXPECT_EQ(Make(pixels, height, width, {.width = width, .height = height}), pixels);
  }
}

TEST(ViewsTest, MirroringTwiceGivesThePhotoBack) {
  const auto pixels = Pattern(9, 11);
  const ViewCrop whole{.width = 11, .height = 9, .mirrored = true};
  const auto once = Make(pixels, 9, 11, whole);
  EXPECT_EQ(once[0], pixels[10 * 3]);
  EXPECT_NE(once, pixels);
  EXPECT_EQ(Make(once, 9, 11, whole), pixels);
}

// Against the same interpolation in floating point.
TEST(ViewsTest, ACropIsEnlargedBilinearly) {
  const int height = 23;
  const int width = 30;
  const auto pixels = Pattern(height, width);
  const ViewCrop crop{.left = 4, .top = 3, .width = 17, .height = 15};
  const auto out = Make(pixels, height, width, crop);
  const auto at = [&](int y, int x, int channel) {
    return static_cast<double>(pixels.at((y * width + x) * 3 + channel));
  };
  const auto place = [](int i, int count, int start, int length) {
    const double centre = (i + 0.5) * length / count - 0.5;
    return start + std::clamp(centre, 0.0, length - 1.0);
  };
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const double from_y = place(y, height, crop.top, crop.height);
      const double from_x = place(x, width, crop.left, crop.width);
      const int top = static_cast<int>(from_y);
      const int left = static_cast<int>(from_x);
      const int bottom = std::min(top + 1, crop.top + crop.height - 1);
      const int right = std::min(left + 1, crop.left + crop.width - 1);
      for (int channel = 0; channel < 3; ++channel) {
        const double above = at(top, left, channel) * (1 - (from_x - left)) +
                             at(top, right, channel) * (from_x - left);
        const double below = at(bottom, left, channel) * (1 - (from_x - left)) +
                             at(bottom, right, channel) * (from_x - left);
        const double wanted = above * (1 - (from_y - top)) + below * (from_y - top);
        // Weights are in 1/128: neighbours differ by up to 249.
        EXPECT_NEAR(out.at((y * width + x) * 3 + channel), wanted, 4.5);
      }
    }
  }
}

TEST(ViewsTest, ColourStaysWithinBytes) {
  const auto pixels = Pattern(4, 80);
  ViewCrop crop{.width = 80, .height = 4, .gain = 512, .shift = 100};
  const auto bright = Make(pixels, 4, 80, crop);
  for (size_t i = 0; i < pixels.size(); ++i) {
    EXPECT_EQ(bright[i], std::clamp((pixels[i] - 128) * 2 + 228, 0, 255));
  }
  crop = {.width = 80, .height = 4, .gain = 0, .shift = -300};
  EXPECT_EQ(Make(pixels, 4, 80, crop), std::vector<uint8_t>(pixels.size(), 0));
}

}  // namespace
}  // namespace ndpipe::extract
