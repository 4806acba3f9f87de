#include "ndpipe/plan/cut_choice.h"

#include <gmock/gmock.h>

namespace ndpipe::plan {
namespace {

using testing::ElementsAre;

constexpr int64_t kNoBound = int64_t{1} << 40;

model::Cut MakeCut(const std::string& name, int64_t bytes, int64_t body, int64_t tail) {
  return {.tensor = name,
          .dims = {bytes / 2},
          .feature_bytes = bytes,
          .body_flops = body,
          .tail_flops = tail,
          .tail_parameters = tail};
}

std::vector<std::string> Names(const CutChoice& choice) {
  std::vector<std::string> names;
  for (const auto& cut : choice.cuts) names.push_back(cut.tensor);
  return names;
}

TEST(CutChoice, OneStandsForNeighboursThatAreAlike) {
  const std::vector<model::Cut> cuts = {
      MakeCut("conv", 100, 500, 500), MakeCut("relu", 100, 504, 496),
      MakeCut("wide", 400, 506, 494), MakeCut("pool", 20, 990, 10),
      MakeCut("flat", 20, 990, 10),   MakeCut("flatter", 20, 991, 9)};
  const auto choice = RepresentativeCuts(cuts, "flat", 16, kNoBound);
  EXPECT_THAT(Names(choice), ElementsAre("relu", "wide", "flat"));
  EXPECT_EQ(choice.num_listed, 6);
  EXPECT_EQ(choice.num_alike, 3);
  EXPECT_EQ(choice.num_thinned, 0);
  EXPECT_EQ(choice.num_too_large, 0);
}

TEST(CutChoice, EqualBytesFarApartAreTwoCuts) {
  const auto choice = RepresentativeCuts({MakeCut("a", 100, 100, 900), MakeCut("b", 100, 200, 800)},
                                         "b", 16, kNoBound);
  EXPECT_THAT(Names(choice), ElementsAre("a", "b"));
}

TEST(CutChoice, FewestBytesOfEachPartAndTheDefaultCutStay) {
  std::vector<model::Cut> cuts;
  for (int i = 0; i < 40; ++i) {
    // In every ten cuts the one that ends with 5 is small.
    cuts.push_back(
        MakeCut("c" + std::to_string(i), i % 10 == 5 ? 10 : 1000 + i, i * 100, 4000 - i * 100));
  }
  cuts.push_back(MakeCut("features", 50, 3999, 1));
  const auto choice = RepresentativeCuts(cuts, "features", 5, kNoBound);
  EXPECT_THAT(Names(choice), ElementsAre("c5", "c15", "c25", "c35", "features"));
  EXPECT_EQ(choice.num_thinned, 36);
}

TEST(CutChoice, OnlyTheDefaultCutWhereOneIsWanted) {
  const std::vector<model::Cut> cuts = {MakeCut("a", 10, 1, 9), MakeCut("b", 20, 9, 1)};
  EXPECT_THAT(Names(RepresentativeCuts(cuts, "b", 1, kNoBound)), ElementsAre("b"));
  EXPECT_THAT(Names(RepresentativeCuts(cuts, "another", 1, kNoBound)), ElementsAre("a"));
}

TEST(CutChoice, WhatFitsNoBlockIsLeftOut) {
  const std::vector<model::Cut> cuts = {MakeCut("a", 1000, 1, 9), MakeCut("b", 20, 9, 1)};
  const auto choice = RepresentativeCuts(cuts, "b", 16, 100);
  EXPECT_THAT(Names(choice), ElementsAre("b"));
  EXPECT_EQ(choice.num_too_large, 1);
}

TEST(CutChoice, NoCutsGiveNone) {
  const auto choice = RepresentativeCuts({}, "x", 3, kNoBound);
  EXPECT_TRUE(choice.cuts.empty());
  EXPECT_EQ(choice.num_listed, 0);
}

// Graphs without any FLOPs, such as those that only move data.
TEST(CutChoice, ZeroWorkEverywhere) {
  std::vector<model::Cut> cuts;
  for (int i = 0; i < 5; ++i) cuts.push_back(MakeCut("c" + std::to_string(i), 10 + i, 0, 0));
  EXPECT_THAT(Names(RepresentativeCuts(cuts, "c4", 2, kNoBound)), ElementsAre("c0", "c4"));
}

}  // namespace
}  // namespace ndpipe::plan
